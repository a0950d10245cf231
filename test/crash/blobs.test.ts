import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { openFileBlobs } from '#local/file-blobs.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { partsFor } from './blobs-content.ts';
import { seeded, startChild } from './child.ts';

const settings = { clock: systemClock, random: systemRandom };

describe('A store of files shared by processes', { timeout: 120_000 }, () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'holdfast-crash-'));
  });
  after(() => rm(folder, { recursive: true }));

  it('holds every acknowledged object whole, and no half one, after kill -9 at 20 moments', async () => {
    const root = join(folder, 'puts');
    const random = seeded(20_261);
    let acknowledged = 0;
    for (let round = 0; round < 20; round++) {
      const child = startChild('./blobs-child.ts', [root, 'put', `r${round}`, '100000']);
      await child.ready;
      await pause(random() * 60);
      child.kill();
      assert.equal(await child.ended, null, 'killed while at work');
      await using blobs = await openFileBlobs(root, settings);
      assert.deepEqual(await readdir(join(root, '.holdfast', 'temporary')), [], 'what was half written is swept');
      const present = new Set<string>();
      for (let cursor: string | undefined; ; ) {
        const page = await blobs.list(`r${round}/`, cursor);
        for (const { key } of page.blobs) present.add(key);
        if (page.next === undefined) break;
        cursor = page.next;
      }
      for (const key of present) {
        const { content } = (await blobs.get(key))!;
        assert.ok(Buffer.concat(partsFor(key)).equals(content), `${key} is whole`);
      }
      for (const key of child.lines) assert.ok(present.has(key), `${key} was acknowledged`);
      acknowledged += child.lines.length;
    }
    assert.ok(acknowledged > 20, `${acknowledged} objects`);
  });

  it('lets one process create each key', async () => {
    const root = join(folder, 'creates');
    const children = ['a', 'b', 'c'].map((name) => startChild('./blobs-child.ts', [root, 'create', name, '150']));
    for (const child of children) assert.equal(await child.ended, 0);
    const created = children.flatMap((child) => child.lines).sort((a, b) => Number(a) - Number(b));
    assert.deepEqual(
      created,
      Array.from({ length: 150 }, (_, i) => `${i}`),
    );
  });

  it('loses no swap of several processes, also when some are killed in the middle', async () => {
    const root = join(folder, 'swaps');
    const random = seeded(7);
    const steady = ['a', 'b'].map((name) => startChild('./blobs-child.ts', [root, 'count', name, '150']));
    const told: string[] = [];
    let killed = 0;
    for (; killed < 8; killed++) {
      const child = startChild('./blobs-child.ts', [root, 'count', `k${killed}`, '100000']);
      await child.ready;
      await pause(random() * 80);
      child.kill();
      await child.ended;
      told.push(...child.lines);
    }
    for (const child of steady) {
      assert.equal(await child.ended, 0);
      told.push(...child.lines);
    }
    await using blobs = await openFileBlobs(root, settings);
    const { total } = JSON.parse(Buffer.from((await blobs.get('counter'))!.content).toString());
    assert.equal(new Set(told).size, told.length, 'no number was given twice');
    // A killed process may have swapped once without being able to tell.
    assert.ok(total >= told.length && total <= told.length + killed, `${told.length} told of, ${total} counted`);
  });
});
