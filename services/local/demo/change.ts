import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chance, fillWords, placeOf } from './chance.ts';
import { refuseFull } from './disk.ts';
import { makeFile } from './made-up.ts';
import { runProgram } from './program.ts';

export interface DayPlan {
  /** A disk that {@link buildDisk} made. */
  readonly path: string;
  /** Names the day: another seed, another day. */
  readonly seed: string;
  /** Bytes of files written; about as many files as that takes are removed. Default 16 MiB. */
  readonly bytes?: number;
  readonly signal?: AbortSignal;
}

export interface DayChange {
  readonly written: number;
  readonly removed: number;
}

const MAX_FILE_BYTES = 256 * 1024;
const LOG_FOLDER = '/var/log/days';

/** Works on the disk as a day of use does: new log files are written and some old files are removed, through the file system. */
export async function changeDisk({ path, seed, bytes = 16 * 2 ** 20, signal }: DayPlan): Promise<DayChange> {
  const options = signal ? { signal } : {};
  const scratch = await mkdtemp(join(tmpdir(), 'holdfast-day-'));
  try {
    const dice = chance(seed);
    const folder = `${LOG_FOLDER}/${Math.floor(placeOf(seed) * 1e9)}`;
    const lines = ['mkdir /var', 'mkdir /var/log', `mkdir ${LOG_FOLDER}`, `mkdir ${folder}`];
    let written = 0;
    for (let left = bytes; left > 0; written++) {
      const size = Math.min(left, dice.between(512, MAX_FILE_BYTES));
      const file = await makeFile(join(scratch, `log-${written}`), size, fillWords, dice, signal);
      lines.push(`write ${file} ${folder}/log-${written}`);
      left -= size;
    }
    const { stdout } = await runProgram('debugfs', ['-R', 'ls -p /usr/bin', path], { ...options, keepAll: true });
    const removed = regularFiles(stdout).filter((name) => placeOf(seed, name) < 0.05);
    for (const name of removed) lines.push(`rm "/usr/bin/${name}"`);
    const script = join(scratch, 'script');
    await writeFile(script, `${lines.join('\n')}\n`);
    const { stderr } = await runProgram('debugfs', ['-w', '-f', script, path], options);
    refuseFull(path, stderr);
    return { written, removed: removed.length };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Names in the output of `ls -p`: /inode/mode/uid/gid/name/size/. */
function regularFiles(listing: string): string[] {
  return listing.split('\n').flatMap((line) => {
    const [, , mode = '', , , name = ''] = line.split('/');
    return mode.startsWith('10') && name !== '' ? [name] : [];
  });
}
