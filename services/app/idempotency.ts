import { createHash } from 'node:crypto';
import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { freshIds, type Ids, repeatableIds } from './context.ts';
import { changing, toItem, unlessThere } from './records.ts';
import type { Services } from './services.ts';

const KEPT_SECONDS = 24 * 3600;
/** A first request that has not finished after this time is taken to have died with its process. */
const LEASE_MS = 30_000;
/** How long a repetition waits for the first to finish before it is told to come back. */
const WAIT_MS = 10_000;
/** Answers larger than this are not kept; creations answer with one small resource. */
const ANSWER_MAX_BYTES = 200_000;

const recordSchema = z.object({
  fingerprint: z.string(),
  seed: z.string(),
  startedAtMs: z.number(),
  leaseUntilMs: z.number(),
  answer: z.object({ status: z.number(), body: z.string(), headers: z.record(z.string(), z.string()) }).optional(),
});

export interface KeptAnswer {
  readonly status: number;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** What makes two requests the same one. */
export interface Repetition {
  readonly principal: string;
  readonly key: string;
  /** Method, path and body: the same key with another request is an error. */
  readonly fingerprint: string;
}

/** Hash of what was asked. */
export function fingerprintOf(method: string, path: string, body: string): string {
  return createHash('sha256').update(`${method}\n${path}\n${body}`).digest('hex');
}

/**
 * Runs a mutation at most once a key within 24 hours and gives every repetition the first one's answer. If the
 * process dies in between, the repetition runs it again with the same ids, so that it still creates one thing.
 * Failed attempts are not kept.
 */
export async function runOnce(
  services: Services,
  repetition: Repetition,
  run: (ids: Ids) => Promise<KeptAnswer>,
): Promise<KeptAnswer> {
  const { clock, random, table } = services;
  const name = createHash('sha256').update(`${repetition.principal}\n${repetition.key}`).digest('hex');
  const key = { partition: 'idempotency', sort: name };
  const now = clock.nowMs();
  const expiresAtSeconds = Math.ceil(now / 1000) + KEPT_SECONDS;
  const fresh = {
    fingerprint: repetition.fingerprint,
    seed: Buffer.from(random.bytes(16)).toString('hex'),
    startedAtMs: now,
    leaseUntilMs: now + LEASE_MS,
  };
  const isFirst = await unlessThere(table.put(key, toItem(fresh), { ifAbsent: true, expiresAtSeconds }));
  const record = isFirst ? fresh : await takeOver(services, key, repetition);
  if ('answer' in record && record.answer) return record.answer as KeptAnswer;
  try {
    const answer = await run(repeatableIds(record.seed, record.startedAtMs));
    if (answer.body.length <= ANSWER_MAX_BYTES)
      await table.put(key, toItem({ ...record, answer }), { expiresAtSeconds });
    return answer;
  } catch (error) {
    // Free for the next try at once, but with the same ids: part of the work may be done.
    await table.put(key, toItem({ ...record, leaseUntilMs: 0 }), { expiresAtSeconds });
    throw error;
  }
}

/** Fresh ids for a call without a key. */
export function idsWithoutKey(services: Services): Ids {
  return freshIds(services.clock, services.random);
}

async function takeOver(services: Services, key: { partition: string; sort: string }, repetition: Repetition) {
  const until = services.clock.monotonicMs() + WAIT_MS;
  for (;;) {
    const taken = await changing(async () => {
      const item = await services.table.get(key);
      if (item === undefined)
        throw new HoldfastError('conflict', 'The first request with this key is gone', { retryable: true });
      const record = recordSchema.parse(item.value);
      if (record.fingerprint !== repetition.fingerprint) {
        throw new HoldfastError('usage', 'The Idempotency-Key was used before with another request', {
          remedy: 'Use a new key for a new request, and the same request with the same key',
        });
      }
      if (record.answer !== undefined) return record;
      const now = services.clock.nowMs();
      if (record.leaseUntilMs > now) return undefined;
      const next = { ...record, leaseUntilMs: now + LEASE_MS };
      const expiresAtSeconds = Math.ceil(record.startedAtMs / 1000) + KEPT_SECONDS;
      await services.table.put(key, toItem(next), { ifVersion: item.version, expiresAtSeconds });
      return next;
    });
    if (taken !== undefined) return taken;
    if (services.clock.monotonicMs() >= until) {
      throw new HoldfastError('busy', 'The first request with this Idempotency-Key is still under way', {
        retryable: true,
        remedy: 'Ask again in a few seconds with the same key',
      });
    }
    await services.clock.sleep(25);
  }
}
