import type { StoredBytes } from './evidence.ts';

export type Work = 'backup' | 'restore';
export type Victim = 'proxy' | 'control plane' | 'command';

/** What came of one kill. A round without problems proves what the campaign is for. */
export interface KillRecord {
  readonly round: number;
  readonly victim: Victim;
  readonly work: Work;
  readonly aim: string;
  /** Milliseconds from the start of the work to the kill. */
  readonly killedAfterMs: number;
  /** True if the work had ended when the kill came. */
  readonly afterTheEnd: boolean;
  /** From the kill to the moment the work went on; `null` if there was nothing left to do. */
  readonly resumedAfterMs: number | null;
  /** From the kill to the end of the work. */
  readonly endedAfterMs: number;
  /** Bytes that had arrived of packs on their way at the kill: their chunks have to be sent again. */
  readonly brokenOffBytes?: number;
  readonly stored?: StoredBytes;
  readonly windowsDone?: number;
  readonly resumedBytes?: number;
  readonly problems: readonly string[];
}

/** Takes an assertion's place: gathers what is wrong, so that a campaign goes on. */
export class Problems {
  readonly list: string[] = [];

  expect(holds: boolean, otherwise: string): void {
    if (!holds) this.list.push(otherwise);
  }
}

/** Orphans and duplicates together must stay within one pack: more would have been stored, and sent, twice. */
export function judgeStored(problems: Problems, stored: StoredBytes): void {
  const twice = stored.orphanBytes + stored.duplicateBytes;
  problems.expect(
    twice <= stored.largestPackBytes,
    `${twice} bytes stored twice: ${stored.orphanBytes} in orphaned packs, ${stored.duplicateBytes} in doubled chunks`,
  );
}
