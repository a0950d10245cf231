import { spawn } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import type { Extent } from '../disk.ts';
import { ExtentList } from './extents.ts';

const LINE_MAX_BYTES = 64 * 1024;

/**
 * The ranges of a raw file that may hold data, or `undefined` if that cannot be said for certain: then read everything.
 * What this wrongly leaves out is lost, so every line that is not understood means `undefined`.
 */
export async function fileExtents(
  path: string,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<readonly Extent[] | undefined> {
  const { blocks } = await stat(path);
  if (sizeBytes === 0 || blocks * 512 >= sizeBytes) return undefined; // nothing to gain
  return (await mapByQemu(path, sizeBytes, signal)) ?? (await mapByFilefrag(path, sizeBytes, signal));
}

const mapLine = z.object({ start: z.number().int(), length: z.number().int(), zero: z.boolean(), data: z.boolean() });

/**
 * By SEEK_DATA and SEEK_HOLE, which see delayed allocations and dirty pages of unwritten extents; where a file system
 * lacks them the whole file counts as data.
 */
export async function mapByQemu(
  path: string,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<readonly Extent[] | undefined> {
  const list = new ExtentList();
  let at = 0;
  const args = ['map', '--force-share', '--output=json', '-f', 'raw', path];
  const fine = await eachLine('qemu-img', args, signal, (line) => {
    const json = line.replace(/^\[/, '').replace(/[,\]]+$/, '');
    if (json === '') return true;
    const run = mapLine.safeParse(parse(json)).data;
    if (!run || run.start !== at || run.length <= 0) return false;
    at += run.length;
    // Only what is declared to read as zeros is left out.
    if (run.data || !run.zero) list.add(run.start, Math.min(run.length, sizeBytes - run.start));
    return true;
  });
  return fine && at >= sizeBytes ? list.extents : undefined;
}

/**
 * By FIEMAP after a sync (delayed allocations have no extent before). Unwritten extents count as data: they may be
 * written by pages that are still dirty.
 */
export async function mapByFilefrag(
  path: string,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<readonly Extent[] | undefined> {
  const list = new ExtentList();
  let end = 0;
  let sawLast = false;
  let summary: string | undefined;
  const known = /^(Filesystem type is|File size of | ext: )/;
  const fine = await eachLine('filefrag', ['-v', '-s', '-b1', path], signal, (line) => {
    const row = /^\s*\d+:\s*(\d+)\.\.\s*(\d+):\s*\d+\.\.\s*\d+:\s*(\d+):(.*)$/.exec(line);
    if (row) {
      const [from, to, length] = [Number(row[1]), Number(row[2]) + 1, Number(row[3])];
      if (sawLast || from < end || to - from !== length) return false;
      end = to;
      sawLast = /\blast\b/.test(row[4]!);
      list.add(from, Math.min(to, sizeBytes) - from);
      return true;
    }
    if (known.test(line)) return true;
    const count = /: (\d+) extents? found/.exec(line);
    if (!count || summary !== undefined) return false;
    summary = line;
    return true;
  });
  if (!fine || summary === undefined) return undefined;
  // A file of holes only has no extents; any other list must be known to be whole.
  return sawLast || (end === 0 && / 0 extents found/.test(summary)) ? list.extents : undefined;
}

/** Runs a program and hands its lines to `take`; false if it is absent, fails, says anything on stderr, or `take` gives up. */
function eachLine(
  program: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
  take: (line: string) => boolean,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
    });
    let fine = true;
    const stop = () => {
      fine = false;
      child.kill('SIGKILL');
    };
    signal?.addEventListener('abort', stop, { once: true });
    if (signal?.aborted) stop();
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => {
      if (fine && (line.length > LINE_MAX_BYTES || !take(line))) stop();
    });
    child.stderr.on('data', () => {
      fine = false;
    });
    const linesEnded = new Promise((ended) => lines.once('close', ended));
    const settle = async (exit: number | null) => {
      signal?.removeEventListener('abort', stop);
      await linesEnded;
      if (signal?.aborted)
        reject(new HoldfastError('cancelled', `Looking for the holes of ${args.at(-1)} was cancelled`));
      else resolve(fine && exit === 0);
    };
    child.once('error', () => resolve(false)); // not installed
    child.once('close', (exit) => void settle(exit));
  });
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
