import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { BLOB_KEY_MAX_BYTES, BLOB_LIST_MAX_KEYS, BLOB_SWAP_MAX_BYTES } from '#contract/limits.ts';
import type { Blobs } from '#ports/blobs.ts';

export interface BlobsFixture {
  readonly blobs: Blobs;
  dispose(): Promise<void>;
}

const bytes = (text: string) => Buffer.from(text);
const sha256 = (content: Uint8Array) => createHash('sha256').update(content).digest();
const failsWith = (code: Parameters<typeof isHoldfastError>[1]) => (error: unknown) => isHoldfastError(error, code);

/** What every adapter of the Blobs port must do. `make` gives an empty store. */
export function blobsConformance(name: string, make: () => Promise<BlobsFixture>): void {
  describe(`${name} keeps the promises of Blobs`, () => {
    let fixture: BlobsFixture;
    let blobs: Blobs;
    before(async () => {
      fixture = await make();
      blobs = fixture.blobs;
    });
    after(() => fixture.dispose());

    it('gives back what was put, whole', async () => {
      assert.equal(await blobs.putIfAbsent('whole/one', [bytes('hello, '), bytes(''), bytes('world')]), 'created');
      assert.deepEqual(Buffer.from((await blobs.get('whole/one'))!.content), bytes('hello, world'));
      assert.equal((await blobs.head('whole/one'))!.sizeBytes, 12);
    });

    it('keeps an empty object apart from an absent one', async () => {
      assert.equal(await blobs.putIfAbsent('whole/empty', []), 'created');
      assert.equal((await blobs.get('whole/empty'))!.content.length, 0);
      assert.equal((await blobs.head('whole/empty'))!.sizeBytes, 0);
      assert.equal(await blobs.get('whole/absent'), undefined);
      assert.equal(await blobs.head('whole/absent'), undefined);
      assert.equal((await blobs.getRange('whole/empty', 0, 0)).length, 0);
    });

    it('writes thousands of parts in order and leaves them as they were', async () => {
      const pool = Buffer.alloc(5000 * 700);
      for (let i = 0; i < pool.length; i++) pool[i] = (i * 7 + (i >> 8)) & 255;
      const before = sha256(pool);
      const parts = Array.from({ length: 5000 }, (_, i) => pool.subarray(i * 700, (i + 1) * 700));
      assert.equal(await blobs.putIfAbsent('whole/parts', parts, { sha256: before }), 'created');
      assert.deepEqual(sha256((await blobs.get('whole/parts'))!.content), before);
      assert.deepEqual(sha256(pool), before);
    });

    it('keeps no part: changing one after the put changes nothing', async () => {
      const part = bytes('before');
      await blobs.putIfAbsent('whole/kept', [part]);
      part.fill(0);
      assert.deepEqual(Buffer.from((await blobs.get('whole/kept'))!.content), bytes('before'));
    });

    it('answers "exists" for a taken key, whatever the content, and changes nothing', async () => {
      await blobs.putIfAbsent('taken', [bytes('first')]);
      assert.equal(await blobs.putIfAbsent('taken', [bytes('second')]), 'exists');
      assert.equal(await blobs.putIfAbsent('taken', [bytes('first')]), 'exists');
      assert.deepEqual(Buffer.from((await blobs.get('taken'))!.content), bytes('first'));
    });

    it('lets exactly one of 50 puts of one key create it, and shows that one whole', async () => {
      const contents = Array.from({ length: 50 }, (_, i) => Buffer.alloc(20_000, i));
      const answers = await Promise.all(contents.map((content) => blobs.putIfAbsent('race/put', [content])));
      assert.equal(answers.filter((answer) => answer === 'created').length, 1);
      const winner = answers.indexOf('created');
      assert.deepEqual(Buffer.from((await blobs.get('race/put'))!.content), contents[winner]);
    });

    it('refuses content of another SHA-256 than announced, and leaves nothing', async () => {
      const wrong = { sha256: sha256(bytes('other')) };
      await assert.rejects(blobs.putIfAbsent('hash/wrong', [bytes('this')], wrong), failsWith('damaged'));
      assert.equal(await blobs.head('hash/wrong'), undefined);
      assert.equal(
        await blobs.putIfAbsent('hash/wrong', [bytes('this')], { sha256: sha256(bytes('this')) }),
        'created',
      );
    });

    it('does not write when it was aborted before', async () => {
      const options = { signal: AbortSignal.abort() };
      await assert.rejects(blobs.putIfAbsent('aborted', [bytes('x')], options), failsWith('cancelled'));
      await assert.rejects(blobs.getRange('taken', 0, 1, options.signal), failsWith('cancelled'));
      assert.equal(await blobs.head('aborted'), undefined);
    });

    it('reads any range, and names what is missing or too short', async () => {
      await blobs.putIfAbsent('range', [bytes('0123456789')]);
      assert.deepEqual(Buffer.from(await blobs.getRange('range', 0, 10)), bytes('0123456789'));
      assert.deepEqual(Buffer.from(await blobs.getRange('range', 3, 4)), bytes('3456'));
      assert.equal((await blobs.getRange('range', 10, 0)).length, 0);
      await assert.rejects(blobs.getRange('range', 3, 8), failsWith('damaged'));
      await assert.rejects(blobs.getRange('range', 11, 0), failsWith('damaged'));
      await assert.rejects(blobs.getRange('range-absent', 0, 1), failsWith('missing'));
      for (const [offset, length] of [
        [-1, 1],
        [0, -1],
        [0.5, 1],
        [0, Number.NaN],
      ] as const) {
        await assert.rejects(blobs.getRange('range', offset, length), failsWith('usage'));
      }
    });

    it('swaps only the version that is expected', async () => {
      const first = await blobs.replaceIf('swap/a', bytes('1'), null);
      assert.ok(first);
      assert.equal(await blobs.replaceIf('swap/a', bytes('2'), null), undefined);
      assert.equal(await blobs.replaceIf('swap/a', bytes('2'), 'no-such-version'), undefined);
      const second = await blobs.replaceIf('swap/a', bytes('2'), first);
      assert.ok(second);
      assert.notEqual(second, first);
      assert.equal(await blobs.replaceIf('swap/a', bytes('3'), first), undefined);
      const now = await blobs.get('swap/a');
      assert.deepEqual(Buffer.from(now!.content), bytes('2'));
      assert.equal(now!.version, second);
      assert.deepEqual(await blobs.head('swap/a'), { sizeBytes: 1, version: second });
    });

    it('does not swap what does not exist, and swaps what a put created', async () => {
      assert.equal(await blobs.replaceIf('swap/absent', bytes('1'), 'some-version'), undefined);
      assert.equal(await blobs.head('swap/absent'), undefined);
      await blobs.putIfAbsent('swap/put', [bytes('put')]);
      assert.equal(await blobs.replaceIf('swap/put', bytes('new'), null), undefined);
      assert.ok(await blobs.replaceIf('swap/put', bytes('new'), (await blobs.head('swap/put'))!.version));
      assert.equal(await blobs.putIfAbsent('swap/put', [bytes('again')]), 'exists');
    });

    it('loses no update when many count in one object', async () => {
      await blobs.replaceIf('swap/count', bytes('0'), null);
      const addOne = async () => {
        for (let attempt = 0; attempt < 1000; attempt++) {
          const { content, version } = (await blobs.get('swap/count'))!;
          const next = bytes(String(Number(Buffer.from(content).toString()) + 1));
          if ((await blobs.replaceIf('swap/count', next, version)) !== undefined) return;
        }
        assert.fail('never came through');
      };
      await Promise.all(Array.from({ length: 10 }, addOne));
      assert.deepEqual(Buffer.from((await blobs.get('swap/count'))!.content), bytes('10'));
    });

    it('lets exactly one of 20 create by swap', async () => {
      const versions = await Promise.all(
        Array.from({ length: 20 }, (_, i) => blobs.replaceIf('swap/create', bytes(`by ${i}`), null)),
      );
      assert.equal(versions.filter((version) => version !== undefined).length, 1);
    });

    it('deletes, at once for all readers, and is content if there is nothing to delete', async () => {
      await blobs.putIfAbsent('gone/x', [bytes('x')]);
      await blobs.delete('gone/x');
      assert.equal(await blobs.get('gone/x'), undefined);
      assert.deepEqual((await blobs.list('gone/')).blobs, []);
      await blobs.delete('gone/x');
      await blobs.delete('never/was/there');
      assert.equal(await blobs.putIfAbsent('gone/x', [bytes('y')]), 'created');
    });

    it('lists the keys under a prefix in byte order', async () => {
      const keys = ['o/a', 'o/a-b', 'o/a/', 'o/ab', 'o/b/1', 'o/b/10', 'o/b/2', 'o/b!', 'o/é', 'o/z', 'o/\u{1f600}'];
      const valid = keys.filter((key) => !key.endsWith('/') && key !== 'o/a');
      for (const key of [...valid].reverse()) await blobs.putIfAbsent(key, [bytes(key)]);
      await blobs.putIfAbsent('p/other', []);
      const listed = await blobs.list('o/');
      const expected = [...valid].sort((a, b) => Buffer.compare(bytes(a), bytes(b)));
      assert.deepEqual(
        listed.blobs,
        expected.map((key) => ({ key, sizeBytes: bytes(key).length })),
      );
      assert.equal(listed.next, undefined);
      const names = async (prefix: string) => (await blobs.list(prefix)).blobs.map((blob) => blob.key);
      assert.deepEqual(await names('o/b'), ['o/b!', 'o/b/1', 'o/b/10', 'o/b/2']);
      assert.deepEqual(await names('o/b/1'), ['o/b/1', 'o/b/10']);
      assert.deepEqual(await names('o/b/1/'), []);
      assert.deepEqual(await names('nothing/here'), []);
    });

    it('pages through more keys than a page holds: each once, in order, also when some go in between', async () => {
      const count = BLOB_LIST_MAX_KEYS * 2 + 50;
      const keys = Array.from({ length: count }, (_, i) => `page/${i % 16}/${i}`);
      for (let i = 0; i < count; i += 50) {
        await Promise.all(keys.slice(i, i + 50).map((key) => blobs.putIfAbsent(key, [])));
      }
      keys.sort((a, b) => Buffer.compare(bytes(a), bytes(b)));
      const first = await blobs.list('page/');
      assert.equal(first.blobs.length, BLOB_LIST_MAX_KEYS);
      await blobs.delete(first.blobs.at(-1)!.key); // the cursor's own key may be gone
      const seen = first.blobs.map((blob) => blob.key);
      for (let next = first.next; next !== undefined; ) {
        const page = await blobs.list('page/', next);
        seen.push(...page.blobs.map((blob) => blob.key));
        next = page.next;
      }
      assert.deepEqual(seen, keys);
    });

    it('refuses keys that no store takes', async () => {
      const long = 'k'.repeat(200);
      const tooLong = Array.from({ length: 6 }, () => long).join('/');
      assert.ok(tooLong.length > BLOB_KEY_MAX_BYTES);
      await assert.rejects(blobs.putIfAbsent(tooLong, []), failsWith('limit'));
      const bad = ['', '/a', 'a/', 'a//b', '../a', 'a/../b', '.', 'a/./b', 'a\0b', 'a\nb', 'a\\b', '\ud800'];
      for (const key of bad) {
        await assert.rejects(blobs.putIfAbsent(key, []), failsWith('usage'), JSON.stringify(key));
        await assert.rejects(blobs.get(key), failsWith('usage'), JSON.stringify(key));
        await assert.rejects(blobs.replaceIf(key, bytes(''), null), failsWith('usage'), JSON.stringify(key));
        await assert.rejects(blobs.delete(key), failsWith('usage'), JSON.stringify(key));
      }
      await assert.rejects(blobs.list('../'), failsWith('usage'));
    });

    it('takes a key of exactly the longest length', async () => {
      const key = `${'k'.repeat(200)}/`.repeat(5) + 'e'.repeat(BLOB_KEY_MAX_BYTES - 5 * 201);
      assert.equal(await blobs.putIfAbsent(key, [bytes('x')]), 'created');
      assert.equal((await blobs.head(key))!.sizeBytes, 1);
    });

    it('refuses to swap more than the limit', async () => {
      const tooMuch = Buffer.alloc(BLOB_SWAP_MAX_BYTES + 1);
      await assert.rejects(blobs.replaceIf('swap/big', tooMuch, null), failsWith('limit'));
    });
  });
}
