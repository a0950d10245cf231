import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** A process under test that tells what it does line by line, and that can be killed at any moment. */
export interface Child {
  /** Lines so far; complete once `ended`. */
  readonly lines: string[];
  /** Resolves with the exit code, or `null` if it was killed, once all its lines have been read. */
  readonly ended: Promise<number | null>;
  /** Resolves when it has printed `ready`; rejects if it ends before. */
  readonly ready: Promise<void>;
  kill(): void;
}

/** Starts one of the scripts beside this file under this Node. Its errors go to our own stderr. */
export function startChild(script: string, args: readonly string[]): Child {
  const path = new URL(script, import.meta.url).pathname;
  const child: ChildProcess = spawn(process.execPath, [path, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines: string[] = [];
  let isReady: () => void = () => {};
  let isNot: (error: Error) => void = () => {};
  const ready = new Promise<void>((resolve, reject) => {
    isReady = resolve;
    isNot = reject;
  });
  const reader = createInterface({ input: child.stdout! });
  reader.on('line', (line) => (line === 'ready' ? isReady() : lines.push(line)));
  const ended = Promise.all([once(child, 'exit'), once(reader, 'close')]).then(([[code]]) => {
    isNot(new Error(`${script} ended before it was ready`));
    return code as number | null;
  });
  ready.catch(() => {}); // who does not wait for it learns of it by `ended`
  return { lines, ended, ready, kill: () => child.kill('SIGKILL') };
}

/** Small reproducible random numbers in [0, 1) (mulberry32, public domain). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
