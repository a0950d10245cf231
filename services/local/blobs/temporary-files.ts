import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import { fileErrorCode } from './file-errors.ts';

/** No upload lasts longer: a temporary file older than this is litter, whoever made it. */
const LITTER_AFTER_MS = 24 * 3600 * 1000;

/**
 * A new temporary file's path. Its name says which process made it, so that what a killed process
 * left behind can be told from what a living one is writing.
 */
export function temporaryPath(folder: string, random: Random): string {
  return join(folder, `${processSpace()}-${process.pid}-${Buffer.from(random.bytes(12)).toString('hex')}`);
}

/**
 * Removes temporary files that no process will finish: those of dead processes of this machine at once, any
 * others (of other hosts, containers, or with a reused process id) after a day. Answers how many.
 */
export async function sweepTemporaryFiles(folder: string, clock: Clock): Promise<number> {
  let removed = 0;
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    try {
      const isOld = clock.nowMs() - (await stat(path)).mtimeMs > LITTER_AFTER_MS;
      if (!isOld && !isOfDeadProcess(name)) continue;
      await unlink(path);
      removed++;
    } catch (error) {
      if (fileErrorCode(error) !== 'ENOENT') throw error; // another process sweeps too
    }
  }
  return removed;
}

function isOfDeadProcess(name: string): boolean {
  const [space, pid] = name.split('-');
  if (space !== processSpace() || !Number.isSafeInteger(Number(pid)) || Number(pid) <= 0) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return fileErrorCode(error) === 'ESRCH';
  }
}

let space: string | undefined;

/** Names the set of processes whose ids we can compare: this boot, and this container. */
function processSpace(): string {
  space ??= createHash('sha256').update(bootFacts()).digest('hex').slice(0, 16);
  return space;
}

function bootFacts(): string {
  try {
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')}${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return `${process.platform} without /proc: one boot is like another, so only age tells`;
  }
}
