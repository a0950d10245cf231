import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import type { Blobs } from '#ports/blobs.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { MemoryBlobs, withFaults } from '#test/fixtures/memory-blobs.ts';
import { ChunkNamer } from './chunk.ts';
import type { ChunkLocation, IndexedPack } from './index-segment.ts';
import { createVaultKeys } from './keys.ts';
import { packKey } from './names.ts';
import { assemblePack } from './pack.ts';
import { PackReader } from './pack-reader.ts';
import { SEAL_OVERHEAD_BYTES, Sealer } from './seal.ts';
import { sha256 } from './sha256.ts';

const random = seededRandom('pack reader');
const keys = createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', random);
const sealer = new Sealer(keys, random);
const namer = new ChunkNamer(keys.idKey);

/** A store with the same chunks in several packs, and the index of it. */
class Stored {
  readonly blobs = new MemoryBlobs();
  readonly packs: IndexedPack[] = [];
  readonly places = new Map<string, ChunkLocation[]>();

  async add(contents: readonly Buffer[], idOf = (content: Buffer) => namer.ofContent('data', content)): Promise<void> {
    const chunks = contents.map((content) => {
      const bytes = Buffer.alloc(content.length + SEAL_OVERHEAD_BYTES);
      sealer.seal('data', idOf(content), content, content.length, bytes);
      return { bytes, sha256: sha256(bytes), children: new Uint8Array(0) };
    });
    const { parts, sizeBytes, footerOffset, slotOf } = assemblePack(chunks, random);
    const pack = { id: Buffer.from(random.bytes(16)), sizeBytes, footerOffset };
    await this.blobs.putIfAbsent(packKey(pack.id), parts);
    this.packs.push(pack);
    contents.forEach((content, i) => {
      const id = idOf(content).toString('hex');
      this.places.set(id, [...(this.places.get(id) ?? []), { pack, slot: slotOf[i]! }]);
    });
  }

  reader(blobs: Blobs = this.blobs): PackReader {
    return new PackReader(blobs, sealer, namer, (id) => this.places.get(id.toString('hex')) ?? []);
  }

  /** Changes a byte of a pack. */
  spoil(pack: number, at: number): void {
    const { content } = this.blobs.objects.get(packKey(this.packs[pack]!.id))!;
    content[at < 0 ? content.length + at : at]! ^= 1;
  }
}

const page = (seed: number) => Buffer.alloc(4096, seed);
const idOf = (content: Buffer) => namer.ofContent('data', content);

describe('reading a chunk', () => {
  it('finds it in its pack and fetches a small pack once', async () => {
    const stored = new Stored();
    await stored.add([page(1), page(2), page(3)]);
    const reader = stored.reader();
    for (const seed of [1, 2, 3, 1]) assert.deepEqual(await reader.read(idOf(page(seed))), page(seed));
    const pack = stored.packs[0]!;
    assert.equal(reader.fetchedBytes, pack.sizeBytes + pack.sizeBytes - pack.footerOffset);
  });

  it('reads it from its second place when the first is damaged or gone', async () => {
    const breakFirst: ((stored: Stored) => void)[] = [
      (stored) => stored.spoil(0, 100), // in the chunk
      (stored) => stored.spoil(0, -60), // in the footer
      (stored) => stored.spoil(0, -1), // in the trailer
      (stored) => stored.blobs.objects.delete(packKey(stored.packs[0]!.id)),
    ];
    for (const [i, spoil] of breakFirst.entries()) {
      const stored = new Stored();
      await stored.add([page(1)]);
      await stored.add([page(1), page(2)]);
      spoil(stored);
      assert.deepEqual(await stored.reader().read(idOf(page(1))), page(1), `way ${i}`);
    }
  });

  it('tells what is damaged when every place is, and missing when there is none', async () => {
    const stored = new Stored();
    await stored.add([page(1)]);
    stored.spoil(0, 100);
    await assert.rejects(stored.reader().read(idOf(page(1))), (error) => isHoldfastError(error, 'damaged'));
    await assert.rejects(stored.reader().read(idOf(page(9))), (error) => isHoldfastError(error, 'missing'));
  });

  it('refuses a chunk that is sealed well but is not what its id names', async () => {
    const stored = new Stored();
    await stored.add([page(1)], () => idOf(page(2))); // a writer's memory failed between hashing and sealing
    await assert.rejects(stored.reader().read(idOf(page(2))), (error) => isHoldfastError(error, 'damaged'));
  });

  it('refuses a slot that holds another chunk than the index says', async () => {
    const stored = new Stored();
    await stored.add([page(1), page(2)]);
    stored.places.set(idOf(page(1)).toString('hex'), stored.places.get(idOf(page(2)).toString('hex'))!);
    await assert.rejects(stored.reader().read(idOf(page(1))), (error) => isHoldfastError(error, 'damaged'));
    await assert.rejects(stored.reader().find(idOf(page(1))), (error) => isHoldfastError(error, 'damaged'));
  });

  it('does not take a store that cannot be reached for one that has lost the chunk', async () => {
    const stored = new Stored();
    await stored.add([page(1)]);
    await stored.add([page(1)]);
    for (const down of [0, 1]) {
      const alive = packKey(stored.packs[down]!.id);
      const gone = new Stored();
      gone.packs.push(...stored.packs);
      for (const [id, places] of stored.places) gone.places.set(id, places);
      gone.blobs.objects.set(alive, stored.blobs.objects.get(alive)!);
      const blobs = withFaults(gone.blobs, (_, key) => (key === alive ? 'before' : undefined));
      await assert.rejects(gone.reader(blobs).read(idOf(page(1))), (error) => isHoldfastError(error, 'store-failed'));
    }
  });

  it('asks again after the store has failed once', async () => {
    const stored = new Stored();
    await stored.add([page(1)]);
    let calls = 0;
    const reader = stored.reader(withFaults(stored.blobs, () => (calls++ === 0 ? 'before' : undefined)));
    await assert.rejects(reader.read(idOf(page(1))));
    assert.deepEqual(await reader.read(idOf(page(1))), page(1));
  });
});
