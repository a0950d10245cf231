import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MemoryBlobs } from '#test/fixtures/memory-blobs.ts';
import { vaultPrefix, withPrefix } from './prefix.ts';

describe('a vault’s part of a store', () => {
  const store = new MemoryBlobs();
  const one = withPrefix(store, vaultPrefix('vlt_1'));
  const other = withPrefix(store, vaultPrefix('vlt_2'));

  it('is a store of its own, in which the same keys are other objects', async () => {
    assert.equal(await one.putIfAbsent('a/b', [Buffer.from('one')]), 'created');
    assert.equal(await other.putIfAbsent('a/b', [Buffer.from('other')]), 'created');
    assert.equal(Buffer.from((await one.get('a/b'))!.content).toString(), 'one');
    assert.equal(Buffer.from(await other.getRange('a/b', 1, 3)).toString(), 'the');
    assert.equal((await other.head('a/b'))!.sizeBytes, 5);
    const version = await one.replaceIf('state', Buffer.from('1'), null);
    assert.equal(await one.replaceIf('state', Buffer.from('2'), null), undefined);
    assert.ok(await one.replaceIf('state', Buffer.from('2'), version!));
    assert.deepEqual([...store.objects.keys()].sort(), ['v1/vlt_1/a/b', 'v1/vlt_1/state', 'v1/vlt_2/a/b']);
    await one.delete('a/b');
    assert.equal(await one.get('a/b'), undefined);
    assert.ok(await other.get('a/b'));
  });

  it('lists its own objects only, under their own names, page by page', async () => {
    for (let i = 0; i < 10; i++) await other.putIfAbsent(`many/${i}`, []);
    const keys: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await other.list('many/', cursor);
      keys.push(...page.blobs.map(({ key }) => key));
      cursor = page.next;
    } while (cursor !== undefined);
    assert.deepEqual(
      keys,
      Array.from({ length: 10 }, (_, i) => `many/${i}`),
    );
    assert.deepEqual((await one.list('many/')).blobs, []);
  });
});
