/** The real command line for tests: one folder with a cache of its own, any number of commands. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

export const LAUNCHER = fileURLToPath(new URL('../../holdfast', import.meta.url));
const TIMEOUT_MS = 60_000;

/** What a command said. */
export interface Said {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
  /** Each line of standard output as JSON; throws if one is none. */
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** The last line. */
  // biome-ignore lint/suspicious/noExplicitAny: results of many commands, looked at by their tests
  readonly result: any;
}

/** A command that runs. */
export interface Running {
  readonly child: ChildProcess;
  readonly said: Promise<Said>;
}

export interface Place {
  readonly folder: string;
  readonly repo: string;
  readonly keyFile: string;
  readonly env: NodeJS.ProcessEnv;
  /** Run before the folder is removed. */
  readonly cleanups: (() => Promise<unknown>)[];
  path(name: string): string;
  /** Runs `holdfast` with these arguments to its end. */
  run(...args: readonly string[]): Promise<Said>;
  start(...args: readonly string[]): Running;
  /** Runs `holdfast vault VERB --repo … --key-file … --json` and the rest. */
  vault(verb: string, ...args: readonly string[]): Promise<Said>;
  startVault(verb: string, ...args: readonly string[]): Running;
}

/** A folder for one test: `repo`, `key` and a cache in it; all is removed when the test ends. */
export async function makePlace(t: TestContext): Promise<Place> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-e2e-'));
  const cleanups: (() => Promise<unknown>)[] = [];
  t.after(async () => {
    for (const cleanup of cleanups) await cleanup();
    await rm(folder, { recursive: true, force: true });
  });
  const path = (name: string) => join(folder, name);
  const env = { ...process.env, XDG_CACHE_HOME: path('cache'), HOME: folder };
  const start = (...args: readonly string[]): Running => {
    const child = spawn(LAUNCHER, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
    const out: Buffer[] = [];
    let stderr = '';
    child.stdout.on('data', (bytes: Buffer) => out.push(bytes));
    child.stderr.on('data', (bytes: Buffer) => (stderr += bytes.toString()));
    const said = new Promise<Said>((resolve) => {
      child.once('close', (code) => {
        clearTimeout(timer);
        resolve(saidOf(code, Buffer.concat(out), stderr));
      });
    });
    return { child, said };
  };
  const of = (verb: string, args: readonly string[]) => {
    const own = (name: string, value: string) => (args.includes(name) ? [] : [name, value]);
    return ['vault', verb, ...own('--repo', path('repo')), ...own('--key-file', path('key')), ...args, '--json'];
  };
  return {
    folder,
    repo: path('repo'),
    keyFile: path('key'),
    env,
    cleanups,
    path,
    start,
    run: (...args) => start(...args).said,
    vault: (verb, ...args) => start(...of(verb, args)).said,
    startVault: (verb, ...args) => start(...of(verb, args)),
  };
}

function saidOf(code: number | null, stdout: Buffer, stderr: string): Said {
  const lines = () =>
    stdout
      .toString()
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  return {
    code,
    stdout,
    stderr,
    get lines() {
      return lines();
    },
    get result() {
      return lines().at(-1);
    },
  };
}
