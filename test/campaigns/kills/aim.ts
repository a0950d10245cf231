import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { SeededRandom } from '#test/random.ts';

/** When to kill: after a share of the time that the work usually takes, or soon after a file is seen. */
export type Aim =
  | { readonly kind: 'time'; readonly share: number }
  | { readonly kind: 'sight'; readonly what: Sight; readonly afterMs: number };

/** Files that tell how far a job is: the index written, the caches ready for the commit, the point's object; a window done, the file whole. */
export type Sight = 'index' | 'prepared' | 'point' | 'window' | 'whole';

/** Every so often a moment around a commit or a journal's entry, which chance alone would seldom hit. */
const SIGHT_EVERY = 4;
const SIGHTS = { backup: ['index', 'prepared', 'point'], restore: ['window', 'whole'] } as const;
/** Jobs take longer now and then; the last moments come after the end. */
const BEYOND = 1.1;

/** `count` moments over a job, most of them spread evenly with chance inside each slice. */
export function aims(count: number, work: 'backup' | 'restore', random: SeededRandom): Aim[] {
  const ordered = Array.from({ length: count }, (_, i): Aim => {
    const share = ((i + random.fraction()) / count) * BEYOND;
    if (i % SIGHT_EVERY !== SIGHT_EVERY - 1) return { kind: 'time', share };
    const choices = SIGHTS[work];
    return { kind: 'sight', what: choices[Math.floor(i / SIGHT_EVERY) % choices.length]!, afterMs: random.below(12) };
  });
  // In any order, so that a campaign that is cut short has seen all of the job too.
  for (let i = count - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [ordered[i], ordered[j]] = [ordered[j]!, ordered[i]!];
  }
  return ordered;
}

/** The aim in words, for the record. */
export function describeAim(aim: Aim): string {
  return aim.kind === 'time' ? `at ${Math.round(aim.share * 100)} %` : `${aim.afterMs} ms after ${aim.what}`;
}

/**
 * Resolves when the moment has come.
 *
 * @param usualMs  how long the work takes without a kill
 * @param folder  below which the files appear
 */
export async function untilMoment(aim: Aim, usualMs: number, folder: string): Promise<void> {
  if (aim.kind === 'time') return pause(aim.share * usualMs);
  const until = performance.now() + usualMs * 3 + 3000;
  while (!isInSight(aim.what, folder) && performance.now() < until) await pause(1);
  await pause(aim.afterMs);
}

function isInSight(what: Sight, folder: string): boolean {
  const matches = {
    index: /\/index\/\d{10}$/,
    prepared: /^next\.json$/,
    point: /^pnt_[^.]*$/,
    window: /\/restores$/,
    whole: /^restored\.(img|qcow2)$/,
  }[what];
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true }).some((entry) => {
      if (!entry.isFile() || entry.name.endsWith('.new')) return false;
      return matches.test(entry.name) || matches.test(entry.parentPath) || matches.test(basename(entry.parentPath));
    });
  } catch {
    return false; // a folder went away while it was listed
  }
}
