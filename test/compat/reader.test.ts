import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { FROZEN, frozenFolder } from './frozen-vault.ts';

const run = promisify(execFile);
const python = fileURLToPath(new URL('../../.peers/python/bin/python', import.meta.url));
const reader = fileURLToPath(new URL('./reader.py', import.meta.url));
const ready = existsSync(python) && existsSync(join(python, '../../requirements.txt'));
const skip = ready ? false : 'needs Python with cryptography and zstandard: sh test/setup/python';

const frozen = frozenFolder(1);
const plain = [join(frozen, FROZEN.store), join(frozen, FROZEN.keyFile)];

async function read(args: readonly string[]): Promise<unknown> {
  const { stdout } = await run(python, [reader, ...args], { maxBuffer: 1024 * 1024 });
  return JSON.parse(stdout);
}

async function expected(): Promise<unknown> {
  const points = JSON.parse(await readFile(join(frozen, FROZEN.points), 'utf8')) as object[];
  return points.map((point) => ({ ...point, machineIsKnownByName: true }));
}

describe('a reader written from docs/format.md alone', { skip }, () => {
  it('restores every point of the frozen vault by its index', async () => {
    assert.deepEqual(await read(plain), await expected());
  });

  it('restores every point by the packs’ footers, without the index and the state, with a passphrase', async () => {
    const scratch = await mkdtemp(join(tmpdir(), 'holdfast-reader-'));
    try {
      const store = join(scratch, 'store');
      await cp(join(frozen, FROZEN.store), store, { recursive: true });
      const [vault] = await readdir(join(store, 'v1'));
      await rm(join(store, 'v1', vault!, 'index'), { recursive: true });
      await rm(join(store, 'v1', vault!, 'state'), { recursive: true });
      const locked = join(frozen, FROZEN.lockedKeyFile);
      assert.deepEqual(await read([store, locked, '--passphrase', FROZEN.passphrase, '--no-index']), await expected());
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  });

  it('refuses a vault in which one bit of a pack has flipped', async () => {
    const scratch = await mkdtemp(join(tmpdir(), 'holdfast-reader-'));
    try {
      const store = join(scratch, 'store');
      await cp(join(frozen, FROZEN.store), store, { recursive: true });
      const packs = (await readdir(store, { recursive: true })).filter((name) => /packs\/..\/./.test(name)).sort();
      const victim = join(store, packs[0]!);
      const content = await readFile(victim);
      content[100]! ^= 4;
      await writeFile(victim, content);
      await assert.rejects(read([store, plain[1]!]), /Damaged/);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  });
});
