import { spawn } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** A program to run and measure. */
export interface Run {
  readonly program: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** What a run cost. */
export interface Cost {
  /** Seconds by the clock on the wall. */
  readonly wall: number;
  /** Seconds of processor time, user and system, of the program and all its children. */
  readonly cpu: number;
  /** Largest resident set of any of its processes. */
  readonly peakBytes: number;
  /** The end of what it printed. */
  readonly stdout: string;
  readonly stderr: string;
}

const KEPT_CHARS = 64 * 1024;

/** Runs a program under GNU time. Throws with its last words if it fails. */
export async function measure(run: Run, scratch: string, signal: AbortSignal): Promise<Cost> {
  signal.throwIfAborted();
  const report = join(scratch, 'time.txt');
  await rm(report, { force: true });
  // --quiet: no line of its own about a failing exit code, which would spoil the figures.
  const child = spawn('/usr/bin/time', ['--quiet', '-f', '%e %U %S %M', '-o', report, run.program, ...run.args], {
    cwd: run.cwd,
    env: { ...process.env, LC_ALL: 'C', ...run.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
  });
  let [stdout, stderr] = ['', ''];
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout = (stdout + text).slice(-KEPT_CHARS)));
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(-KEPT_CHARS)));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (code !== 0) {
    throw new Error(
      `${run.program} ${run.args.join(' ')} ended with ${code}\n${stdout.slice(-2000)}${stderr.slice(-2000)}`,
    );
  }
  return { ...parseTime(await readFile(report, 'utf8')), stdout, stderr };
}

/** Reads GNU time's `%e %U %S %M`; %M is in KiB. */
export function parseTime(text: string): Pick<Cost, 'wall' | 'cpu' | 'peakBytes'> {
  const [wall, user, system, peakKiB] = text.trim().split(/\s+/).map(Number);
  if (peakKiB === undefined || !Number.isFinite(peakKiB)) throw new Error(`GNU time said: ${text}`);
  return { wall: wall!, cpu: user! + system!, peakBytes: peakKiB * 1024 };
}
