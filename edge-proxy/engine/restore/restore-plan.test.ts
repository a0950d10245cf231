import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { ChunkNamer } from '#repository/chunk.ts';
import { buildTree, type Image } from '#repository/image.ts';
import type { ChunkLocation } from '#repository/index-segment.ts';
import { createVaultKeys } from '#repository/keys.ts';
import { append, encodeLeaf, type MapRun } from '#repository/leaf.ts';
import { packKey } from '#repository/names.ts';
import { assemblePack, type SealedChunk } from '#repository/pack.ts';
import { PackReader } from '#repository/pack-reader.ts';
import { SEAL_OVERHEAD_BYTES, Sealer } from '#repository/seal.ts';
import { sha256 } from '#repository/sha256.ts';
import { seededRandom } from '#test/compat/seeded-random.ts';
import { MemoryBlobs } from '#test/fixtures/memory-blobs.ts';
import { planWindow, type RestoreWindow, windowsOf } from './restore-plan.ts';

const SEGMENT = 16 * 1024 * 1024;
const random = seededRandom('restore plan');
const keys = createVaultKeys('vlt_01KDWPVNG0S3MF4F3TX3YRXCD8', random);
const sealer = new Sealer(keys, random);
const namer = new ChunkNamer(keys.idKey);
const damaged = (error: unknown) => isHoldfastError(error, 'damaged');

/** A vault in memory. */
class Vault {
  readonly blobs = new MemoryBlobs();
  readonly places = new Map<string, ChunkLocation>();
  readonly reader = new PackReader(this.blobs, sealer, namer, (id) => {
    const place = this.places.get(id.toString('hex'));
    return place ? [place] : [];
  });

  async store(kind: 'data' | 'node', contents: readonly Buffer[]): Promise<Buffer[]> {
    const ids = contents.map((content) => namer.ofContent(kind, content));
    const chunks = contents.map((content, i): SealedChunk => {
      const bytes = Buffer.alloc(content.length + SEAL_OVERHEAD_BYTES);
      sealer.seal(kind, ids[i]!, content, content.length, bytes);
      return { bytes, sha256: sha256(bytes), children: new Uint8Array(0) };
    });
    const { parts, sizeBytes, footerOffset, slotOf } = assemblePack(chunks, random);
    const pack = { id: Buffer.from(random.bytes(16)), sizeBytes, footerOffset };
    await this.blobs.putIfAbsent(packKey(pack.id), parts);
    for (const [i, id] of ids.entries()) this.places.set(id.toString('hex'), { pack, slot: slotOf[i]! });
    return ids;
  }

  /** An image of the given segments' runs; no runs: zeros. */
  async image(segments: readonly (readonly MapRun[])[], sizeBytes: number): Promise<Image> {
    const ids: Buffer[] = [];
    for (const runs of segments) {
      const leaf = encodeLeaf({ type: 'full', depth: 0, patchChunks: 0, patchedPages: 0, runs });
      ids.push(runs.length === 0 ? Buffer.alloc(32) : (await this.store('node', [leaf.content]))[0]!);
    }
    const root = await buildTree(Buffer.concat(ids), async (content) => (await this.store('node', [content]))[0]!);
    return { root, sizeBytes };
  }

  /** Does what a plan says, and insists that it speaks of every byte once. */
  async follow({ offset, length, zeros, fetches }: RestoreWindow): Promise<Buffer> {
    const disk = Buffer.alloc(length, 0xff);
    const touched = new Uint8Array(length / 512);
    const touch = (at: number, bytes: number) => {
      for (let i = (at - offset) / 512; i < (at - offset + bytes) / 512; i++) touched[i]!++;
    };
    for (const zero of zeros) {
      disk.fill(0, zero.offset - offset, zero.offset - offset + zero.length);
      touch(zero.offset, zero.length);
    }
    for (const fetch of fetches) {
      assert.ok(fetch.length <= 8 * 1024 * 1024);
      const bytes = await this.blobs.getRange(fetch.key, fetch.offset, fetch.length);
      for (const chunk of fetch.chunks) {
        const { content } = sealer.open(bytes.subarray(chunk.at, chunk.at + chunk.length));
        assert.ok(namer.matches('data', content, chunk.id));
        for (const { diskOffset, chunkOffset, length: size } of chunk.placements) {
          content.copy(disk, diskOffset - offset, chunkOffset, chunkOffset + size);
          touch(diskOffset, size);
        }
      }
    }
    assert.ok(
      touched.every((times) => times === 1),
      'every byte is written once',
    );
    return disk;
  }
}

const whole = (chunk: Buffer | null, pages: number, firstPage = 0, chunkPage = 0): MapRun => ({
  firstPage,
  pages,
  chunk,
  chunkPage,
});

describe('the plan of a restore', () => {
  it('brings every byte of the disk once, in windows of any size', async () => {
    const vault = new Vault();
    const contents = Array.from({ length: 40 }, () =>
      Buffer.from(random.bytes(4096 * (1 + Math.floor(random.fraction() * 30)))),
    );
    const packed = await Promise.all(
      [0, 1, 2].map((pack) =>
        vault.store(
          'data',
          contents.filter((_, i) => i % 3 === pack),
        ),
      ),
    );
    const byNumber = (i: number) => packed[i % 3]![Math.floor(i / 3)]!;
    const size = 4 * SEGMENT + 3 * 4096 + 512; // the last page is short
    const expected = Buffer.alloc(size);
    const segments = Array.from({ length: 5 }, (_, segment): MapRun[] => {
      if (segment === 2) return []; // zeros
      const runs: MapRun[] = [];
      const pages = segment === 4 ? 4 : 4096;
      for (let page = 0; page < pages; ) {
        const number = Math.floor(random.fraction() * 80);
        const content = contents[number];
        const available = content ? content.length / 4096 : 200;
        const first = content ? Math.floor(random.fraction() * available) : 0;
        const count = Math.min(available - first, pages - page);
        if (content) {
          const at = segment * SEGMENT + page * 4096;
          content.copy(expected, at, first * 4096, Math.min((first + count) * 4096, first * 4096 + size - at));
        }
        append(runs, whole(content ? byNumber(number) : null, count, page, first));
        page += count;
      }
      return runs;
    });
    const image = await vault.image(segments, size);
    for (const windowBytes of [1, SEGMENT, 2 * SEGMENT, 100 * SEGMENT]) {
      const parts: Buffer[] = [];
      for (const { from, to } of windowsOf(image, windowBytes))
        parts.push(await vault.follow(await planWindow(image, from, to, vault.reader)));
      assert.ok(Buffer.concat(parts).equals(expected), `windows of ${windowBytes} bytes`);
    }
  });

  it('fetches a chunk once, however often it is wanted, and neighbours in one read', async () => {
    const vault = new Vault();
    const ids = await vault.store(
      'data',
      [1, 2, 3, 4].map((seed) => Buffer.alloc(4096, seed)),
    );
    const runs = Array.from({ length: 4096 }, (_, page) => whole(ids[page % 4]!, 1, page));
    const plan = await planWindow(await vault.image([runs], SEGMENT), 0, 1, vault.reader);
    assert.equal(plan.fetches.length, 1);
    assert.equal(plan.fetches[0]!.chunks.length, 4);
    assert.equal(plan.fetches[0]!.chunks[0]!.placements.length, 1024);
    assert.deepEqual(plan.zeros, []);
  });

  it('does not fetch what lies between chunks that are far apart', async () => {
    const vault = new Vault();
    const noise = Array.from({ length: 60 }, () => Buffer.from(random.bytes(128 * 4096)));
    const ids = await vault.store('data', noise);
    const plan = await planWindow(
      await vault.image([[whole(ids[0]!, 128), whole(ids[1]!, 128, 128), whole(null, 3840, 256)]], SEGMENT),
      0,
      1,
      vault.reader,
    );
    const fetched = plan.fetches.reduce((sum, fetch) => sum + fetch.length, 0);
    assert.ok(fetched <= 2 * (128 * 4096 + SEAL_OVERHEAD_BYTES) + 256 * 1024, `${fetched} bytes`);
    assert.equal((await vault.follow(plan)).subarray(0, 128 * 4096).equals(noise[0]!), true);
  });

  it('of a disk of zeros is one range of zeros', async () => {
    const image = { root: null, sizeBytes: 10 * SEGMENT + 5 };
    const plan = await planWindow(image, 0, 11, new Vault().reader);
    assert.deepEqual(plan, {
      offset: 0,
      length: image.sizeBytes,
      zeros: [{ offset: 0, length: image.sizeBytes }],
      fetches: [],
    });
    assert.deepEqual([...windowsOf({ root: null, sizeBytes: 0 }, SEGMENT)], []);
  });

  it('names the part of the disk that is lost: a map with a hole, a chunk that is nowhere', async () => {
    const vault = new Vault();
    const [id] = await vault.store('data', [Buffer.alloc(4096, 1)]);
    const hole = await vault.image([[], [whole(id!, 1), whole(null, 4094, 1)]], 2 * SEGMENT);
    await assert.rejects(planWindow(hole, 0, 2, vault.reader), (error) => {
      assert.ok(damaged(error));
      assert.deepEqual((error as { data: object }).data, { offset: SEGMENT, length: SEGMENT });
      return true;
    });
    const lost = await vault.image([[whole(id!, 1), whole(Buffer.alloc(32, 7), 5, 1), whole(null, 4090, 6)]], SEGMENT);
    await assert.rejects(planWindow(lost, 0, 1, vault.reader), (error) => {
      assert.ok(isHoldfastError(error, 'missing'));
      const { offset, length } = error.data;
      assert.deepEqual({ offset, length }, { offset: 4096, length: 5 * 4096 });
      return true;
    });
  });
});
