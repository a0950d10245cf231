import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { systemClock } from '#local/system-clock.ts';
import type { Blobs } from '#ports/blobs.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { MemoryBlobs, withFaults } from '#test/fixtures/memory-blobs.ts';
import { BlobVaultState } from './blob-state.ts';
import type { Session } from './state.ts';

const ALPHA: Id<'machine'> = 'vm_697AMSK6R85QTP919HE4D9W4J6';
const BETA: Id<'machine'> = 'vm_6E0CPZJFZT8P98AMR3M2J05R5Y';
const MINUTE = 60_000;
const fails = (code: Parameters<typeof isHoldfastError>[1]) => (error: unknown) => isHoldfastError(error, code);

/** A vault's state on a store, with a clock that a test moves. */
function vault(blobs: Blobs, seed = 'state') {
  const time = { nowMs: 1_767_355_200_000 };
  const alive = new Set(['host/1', 'host/2']);
  const clock = { nowMs: () => time.nowMs, monotonicMs: () => time.nowMs, sleep: async () => undefined };
  const state = new BlobVaultState({
    blobs,
    clock,
    random: seededRandom(seed),
    mayBeAlive: (holder) => alive.has(holder),
  });
  return { state, time, alive };
}

const commitOf = (name: string) => ({
  segments: [{ key: `index/0000000001/${name}`, sizeBytes: 100 }],
  pointKey: `points/${ALPHA}/${name}`,
  point: Buffer.from(`point ${name}`),
});

const pointsIn = (blobs: MemoryBlobs) => [...blobs.objects.keys()].filter((key) => key.startsWith('points/')).sort();
const segmentsIn = async (state: BlobVaultState) =>
  (await state.generation()).segments.map(({ key }) => key.split('/').at(-1));

describe('the state of a vault without a control plane', () => {
  it('begins empty, and a commit makes point and segments exist at once', async () => {
    const blobs = new MemoryBlobs();
    const { state } = vault(blobs);
    assert.deepEqual(await state.generation(), { number: 0, segments: [] });
    const session = await state.openSession(ALPHA, 'host/1');
    assert.deepEqual(await segmentsIn(state), []);
    await state.commit(session, commitOf('a'));
    assert.deepEqual(pointsIn(blobs), [`points/${ALPHA}/a`]);
    assert.deepEqual(await state.generation(), { number: 1, segments: commitOf('a').segments });
    await assert.rejects(state.renew(session), fails('fenced'), 'the session is over');
  });

  it('lets one session a machine write, and says who holds it', async () => {
    const { state } = vault(new MemoryBlobs());
    const session = await state.openSession(ALPHA, 'host/1');
    await assert.rejects(
      state.openSession(ALPHA, 'host/2'),
      (error) => fails('busy')(error) && /host\/1/.test(String(error)),
    );
    await state.openSession(BETA, 'host/2');
    await state.abandon(session);
    await state.openSession(ALPHA, 'host/2');
  });

  it('gives the machine to the next one when the holder is dead or its lease has run out', async () => {
    const { state, time, alive } = vault(new MemoryBlobs());
    const first = await state.openSession(ALPHA, 'host/1');
    alive.delete('host/1');
    const second = await state.openSession(ALPHA, 'host/2');
    assert.ok(second.token > first.token);
    time.nowMs += 9 * MINUTE;
    await state.renew(second);
    time.nowMs += 9 * MINUTE;
    await assert.rejects(state.openSession(ALPHA, 'host/2'), fails('busy'), 'the lease was renewed');
    time.nowMs += 2 * MINUTE;
    await state.openSession(ALPHA, 'host/2');
    for (const old of [first, second]) {
      await assert.rejects(state.commit(old, commitOf('zombie')), fails('fenced'));
      await assert.rejects(state.renew(old), fails('fenced'));
      await state.abandon(old); // ends nobody else's session
    }
    assert.deepEqual(await segmentsIn(state), []);
    await assert.rejects(state.openSession(ALPHA, 'host/2'), fails('busy'));
  });

  it('fences a session that is older than the collector allows', async () => {
    const blobs = new MemoryBlobs();
    const { state } = vault(blobs);
    const session = await state.openSession(ALPHA, 'host/1');
    const found = (await blobs.get('state/vault.json'))!;
    const { sha256: _sum, ...now } = JSON.parse(Buffer.from(found.content).toString());
    const raised = { ...now, epoch: 3, minCommitEpoch: 1 };
    await blobs.replaceIf('state/vault.json', Buffer.from(JSON.stringify(raised)), found.version);
    await assert.rejects(state.commit(session, commitOf('late')), fails('fenced'));
    assert.deepEqual(pointsIn(blobs), []);
    await state.abandon(session);
    const next = await state.openSession(ALPHA, 'host/1');
    assert.equal(next.startEpoch, 3);
    await state.commit(next, commitOf('new'));
  });

  it('answers a commit that is asked twice like the first time, but refuses another point', async () => {
    const blobs = new MemoryBlobs();
    const { state } = vault(blobs);
    const session = await state.openSession(ALPHA, 'host/1');
    await state.commit(session, commitOf('a'));
    await state.commit(session, commitOf('a'));
    await assert.rejects(state.commit(session, commitOf('b')), fails('fenced'));
    await assert.rejects(state.commit(session, { ...commitOf('a'), point: Buffer.from('forged') }), fails('fenced'));
    assert.equal((await state.generation()).number, 1);
  });

  it('of which nothing can be read lets points be restored, but nothing be written', async () => {
    const blobs = new MemoryBlobs();
    await blobs.replaceIf('state/vault.json', Buffer.from('{"epoch":'), null);
    await blobs.putIfAbsent('index/0000000004/0a', [Buffer.from('segment')]);
    const { segments } = await vault(blobs).state.generation();
    assert.deepEqual(segments, [{ key: 'index/0000000004/0a', sizeBytes: 7 }]);
    await assert.rejects(vault(blobs).state.openSession(ALPHA, 'host/1'), fails('damaged'));
  });
});

describe('when answers are lost', () => {
  it('every act happens once, wherever a single failure strikes, before or after its effect', async () => {
    for (const fault of ['before', 'after'] as const) {
      for (let strike = 0; strike < 8; strike++) {
        const blobs = new MemoryBlobs();
        let swaps = 0;
        const faulty = withFaults(blobs, (act) => (act === 'replaceIf' && swaps++ === strike ? fault : undefined));
        const { state } = vault(faulty);
        const first = await state.openSession(ALPHA, 'host/1');
        await state.renew(first);
        await state.commit(first, commitOf('a'));
        const second = await state.openSession(ALPHA, 'host/1');
        await state.abandon(second);
        const third = await state.openSession(ALPHA, 'host/1');
        await state.commit(third, commitOf('b'));
        assert.deepEqual(await segmentsIn(state), ['a', 'b'], `${fault} its effect, swap ${strike}`);
        assert.deepEqual(pointsIn(blobs), [`points/${ALPHA}/a`, `points/${ALPHA}/b`]);
      }
    }
  });

  it('gives up after a few, and says that trying again may help', async () => {
    const { state } = vault(withFaults(new MemoryBlobs(), (act) => (act === 'replaceIf' ? 'before' : undefined)));
    await assert.rejects(
      state.openSession(ALPHA, 'host/1'),
      (error) => fails('store-failed')(error) && (error as { retryable: boolean }).retryable,
    );
  });

  it('a commit stands even if its point cannot be written at once; the next one to come writes it', async () => {
    for (const next of ['generation', 'openSession'] as const) {
      const blobs = new MemoryBlobs();
      let down = true;
      const { state } = vault(withFaults(blobs, (act) => (act === 'putIfAbsent' && down ? 'before' : undefined)));
      await state.commit(await state.openSession(ALPHA, 'host/1'), commitOf('a'));
      assert.deepEqual(pointsIn(blobs), []);
      down = false;
      if (next === 'generation') await state.generation();
      else await state.openSession(ALPHA, 'host/1'); // the parent is looked for among the points' objects
      assert.deepEqual(pointsIn(blobs), [`points/${ALPHA}/a`], next);
    }
  });

  it('a crash at any step of a commit leaves the point committed whole, or not at all', async () => {
    const outcomes = new Set<string>();
    for (let strike = 0; strike < 3; strike++) {
      for (const fault of ['before', 'kill'] as const) {
        const blobs = new MemoryBlobs();
        const session = await vault(blobs).state.openSession(ALPHA, 'host/1');
        let step = 0;
        let dead = false;
        const dying = withFaults(blobs, (act) => {
          if (dead) return 'before';
          if (act === 'get' || step++ !== strike) return undefined;
          dead = true;
          return fault;
        });
        await vault(dying)
          .state.commit(session, commitOf('a'))
          .catch(() => undefined);
        // Another process comes along, to which the holder is dead.
        const { state, alive } = vault(blobs, 'other');
        alive.clear();
        await state.openSession(ALPHA, 'host/2');
        const exists = pointsIn(blobs).length === 1;
        assert.deepEqual(await segmentsIn(state), exists ? ['a'] : []);
        assert.deepEqual(
          JSON.parse(Buffer.from((await blobs.get('state/vault.json'))!.content).toString()).pending,
          [],
        );
        outcomes.add(`${strike} ${fault} ${exists}`);
      }
    }
    assert.deepEqual([...outcomes].sort(), [
      '0 before false',
      '0 kill true',
      '1 before true',
      '1 kill true',
      '2 before true',
      '2 kill true',
    ]);
  });
});

describe('many writers on one folder', () => {
  it('all commit, none loses another’s segments, and tokens are never given twice', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-state-'));
    try {
      const sessions: Session[] = [];
      await Promise.all(
        Array.from({ length: 8 }, async (_, i) => {
          const random = seededRandom(`writer ${i}`);
          const blobs = await openFileBlobs(folder, { clock: systemClock, random });
          const state = new BlobVaultState({ blobs, clock: systemClock, random, mayBeAlive: () => true });
          const machine: Id<'machine'> = `vm_${String(i).padStart(26, '0')}`;
          for (let round = 0; round < 3; round++) {
            const session = await state.openSession(machine, `writer ${i}`);
            sessions.push(session);
            await state.commit(session, commitOf(`${i}-${round}`));
          }
        }),
      );
      const random = seededRandom('reader');
      const blobs = await openFileBlobs(folder, { clock: systemClock, random });
      const state = new BlobVaultState({ blobs, clock: systemClock, random, mayBeAlive: () => true });
      assert.equal(new Set(await segmentsIn(state)).size, 24);
      assert.equal((await state.generation()).number, 24);
      assert.equal(new Set(sessions.map(({ token }) => token)).size, 24);
      assert.equal((await blobs.list('points/')).blobs.length, 24);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
