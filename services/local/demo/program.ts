import { spawn } from 'node:child_process';
import { HoldfastError } from '#contract/errors.ts';

/** Output kept for messages; a program that talks without end must not fill the memory. */
const KEPT_OUTPUT_CHARS = 64 * 1024;

export interface ProgramRun {
  readonly signal?: AbortSignal;
  readonly env?: Readonly<Record<string, string>>;
  readonly onLine?: (line: string) => void;
  /** Keep all of stdout: for answers that are read as a whole. */
  readonly keepAll?: boolean;
}

/**
 * Runs a program of Debian's e2fsprogs and resolves to what it printed. Throws `needs-program` if it is not installed,
 * `internal` with its last words if it fails, `cancelled` if the signal ended it.
 */
export async function runProgram(
  program: string,
  args: readonly string[],
  { signal, env = {}, onLine, keepAll = false }: ProgramRun = {},
): Promise<{ stdout: string; stderr: string }> {
  signal?.throwIfAborted();
  const path = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    // debugfs starts a pager if it believes in a terminal; LC_ALL keeps its words what we look for.
    env: { ...process.env, PATH: path, LC_ALL: 'C', PAGER: 'cat', ...env },
  });
  const stop = () => child.kill('SIGKILL');
  signal?.addEventListener('abort', stop);
  let [stdout, stderr, rest] = ['', '', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout = keepAll ? stdout + text : (stdout + text).slice(-KEPT_OUTPUT_CHARS);
    if (onLine === undefined) return;
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-KEPT_OUTPUT_CHARS);
  });
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    if (signal?.aborted) throw new HoldfastError('cancelled', `${program} was interrupted`, { cause: signal.reason });
    if (code !== 0) {
      const lastWords = stderr.trim().split('\n').slice(-3).join('; ');
      throw new HoldfastError('internal', `${program} failed (${code}): ${lastWords}`, {
        remedy: 'Check free space and memory',
      });
    }
    return { stdout, stderr };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new HoldfastError('needs-program', `${program} is not installed`, {
      remedy: 'Install it, on Debian with: apt-get install e2fsprogs',
      cause: error,
    });
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}
