import { createHash } from 'node:crypto';
import { type Id, type IdKind, makeId } from '#contract/ids.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';

/** Whose data a call may touch. Every record is read and written through one; no key is built without it. */
export interface TenantContext {
  readonly tenant: Id<'tenant'>;
}

/** Makes ids. In a call with an Idempotency-Key a repetition makes the same ones, so that it creates nothing twice. */
export interface Ids {
  make<K extends IdKind>(kind: K): Id<K>;
}

/** Fresh ids. */
export function freshIds(clock: Clock, random: Random): Ids {
  return { make: (kind) => makeId(kind, clock.nowMs(), random.bytes(10)) };
}

/** The same ids in the same order for the same seed; `nowMs` is the time they carry. */
export function repeatableIds(seed: string, nowMs: number): Ids {
  let count = 0;
  return {
    make: (kind) =>
      makeId(kind, nowMs, createHash('sha256').update(`${seed}\n${kind}\n${count++}`).digest().subarray(0, 10)),
  };
}
