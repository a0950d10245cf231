import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Id } from '#contract/ids.ts';
import { type ApiClient, connectClient } from '#local/client.ts';

const LAUNCHER = fileURLToPath(new URL('../../holdfast', import.meta.url));
const READY_MS = 20_000;

/** `holdfast up` as its users run it: a process of its own. */
export interface RunningUp extends AsyncDisposable {
  readonly url: string;
  readonly apiKey: string;
  readonly proxy: Id<'proxy'>;
  readonly client: ApiClient;
  readonly process: ChildProcess;
  /** Everything on standard error so far. */
  stderr(): string;
  /** Process id of the edge proxy now. */
  proxyPid(): Promise<number>;
  /** Stops it as Ctrl-C does; resolves to the exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** A folder that is gone when the test is. */
export async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-e2e-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 5 }) };
}

/**
 * Starts `holdfast up` on the folder and waits until its proxy is there.
 *
 * @param environment  set for it besides our own, such as a TMPDIR of its own
 */
export async function startUp(
  folder: string,
  port = 0,
  environment: Readonly<Record<string, string>> = {},
): Promise<RunningUp> {
  const child = spawn(LAUNCHER, ['up', '--data', folder, '--port', String(port), '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  let errors = '';
  child.stderr.on('data', (text) => {
    errors += text;
  });
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const ready = await Promise.race([
    readyLine(child),
    exited.then(([code]) => Promise.reject(new Error(`up ended with ${code}: ${errors}`))),
    new Promise<never>((_, reject) => setTimeout(() => reject(new Error(`not ready: ${errors}`)), READY_MS).unref()),
  ]);
  const apiKey = await readFile(ready.apiKeyFile, 'utf8');
  const stop = async (signal: NodeJS.Signals = 'SIGINT') => {
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    child.kill(signal);
    return (await exited)[0];
  };
  return {
    url: ready.url,
    apiKey: apiKey.trim(),
    proxy: ready.proxy,
    client: connectClient(ready.url, apiKey),
    process: child,
    stderr: () => errors,
    proxyPid: async () => Number(await readFile(join(folder, 'proxy', 'lock.pid'), 'utf8')),
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
    },
  };
}

interface Ready {
  readonly url: string;
  readonly apiKeyFile: string;
  readonly proxy: Id<'proxy'>;
}

async function readyLine(child: ChildProcess): Promise<Ready> {
  for await (const line of createInterface({ input: child.stdout! })) {
    const message = JSON.parse(line);
    if (message.type === 'error') throw new Error(`up ended: ${line}`);
    if (message.type === 'ready') {
      // Nobody reads on, but the pipe must not fill.
      child.stdout!.resume();
      return message;
    }
  }
  // It ended without a word: its exit code and its standard error say more than we could.
  return new Promise<never>(() => {});
}

/** True as long as a process with this id exists. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Waits until it holds; throws after the time. */
export async function eventually(
  what: string,
  holds: () => boolean | Promise<boolean>,
  withinMs = 10_000,
): Promise<void> {
  const until = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > until) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
