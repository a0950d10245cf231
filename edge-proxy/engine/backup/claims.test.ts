import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { sha256 } from '#repository/sha256.ts';
import { allocateClaims, ChunkClaims } from './claims.ts';

const idOf = (number: number) => sha256(Buffer.from(`chunk ${number}`));

describe('claims', () => {
  it('are granted once, and the table knows how many', () => {
    const claims = new ChunkClaims(allocateClaims(1024));
    assert.equal(claims.capacity, 1024);
    for (let i = 0; i < 500; i++) assert.equal(claims.claim(idOf(i)), true);
    for (let i = 0; i < 500; i++) assert.equal(claims.claim(idOf(i)), false);
    assert.equal(claims.count, 500);
  });

  it('tell ids apart that lie in the same place', () => {
    const claims = new ChunkClaims(allocateClaims(128));
    const alike = Array.from({ length: 60 }, (_, i) => {
      const id = Buffer.alloc(32, 0xee); // the same bytes choose the slot
      id[15] = i;
      return id;
    });
    for (const id of alike) assert.equal(claims.claim(id), true);
    for (const id of alike) assert.equal(claims.claim(id), false);
  });

  it('lapse when the table is full: then everybody stores, and nobody hangs', () => {
    const claims = new ChunkClaims(allocateClaims(256));
    for (let i = 0; i < 1000; i++) assert.equal(claims.claim(idOf(i)), true);
    assert.equal(claims.claim(idOf(999)), true);
    assert.ok(claims.count <= 256);
    claims.clear();
    assert.equal(claims.count, 0);
    assert.equal(claims.claim(idOf(5)), true);
    assert.equal(claims.claim(idOf(5)), false);
  });

  it('have exactly one winner among threads that meet the same chunks at once', async () => {
    const CHUNKS = 20_000;
    const memory = allocateClaims(65_536);
    const wins = new Int32Array(new SharedArrayBuffer(CHUNKS * 4));
    const gate = new Int32Array(new SharedArrayBuffer(4));
    const script = new URL('../../../test/fixtures/claimer.ts', import.meta.url);
    const workers = Array.from(
      { length: 4 },
      () => new Worker(script, { workerData: { memory, wins, gate, threads: 4 } }),
    );
    try {
      await Promise.all(
        workers.map((worker) => new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject))),
      );
    } finally {
      await Promise.all(workers.map((worker) => worker.terminate()));
    }
    assert.deepEqual(
      [...wins].filter((count) => count !== 1),
      [],
    );
    assert.equal(new ChunkClaims(memory).count, CHUNKS);
  });
});
