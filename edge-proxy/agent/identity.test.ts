import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import { openIdentity, rememberProxy } from './identity.ts';

const random = { bytes: (length: number) => randomBytes(length), fraction: () => 0.5 };

async function inFolder(work: (folder: string, path: string) => Promise<void>) {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-identity-'));
  try {
    await work(folder, join(folder, 'identity.json'));
  } finally {
    await rm(folder, { recursive: true });
  }
}

test('a proxy keeps its keys and its id over restarts, in a file that only its owner can read', () =>
  inFolder(async (folder, path) => {
    const made = await openIdentity(folder, random);
    assert.equal(made.proxy, undefined);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    await rememberProxy(folder, 'pxy_01JD0000000000000000000000');
    const again = await openIdentity(folder, random);
    assert.equal(again.proxy, 'pxy_01JD0000000000000000000000');
    assert.deepEqual([again.publicKey, again.sealPublicKey], [made.publicKey, made.sealPublicKey]);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
  }));

test('a file that others can read is refused with what to do', () =>
  inFolder(async (folder, path) => {
    await openIdentity(folder, random);
    await chmod(path, 0o644);
    await assert.rejects(
      openIdentity(folder, random),
      (error) => isHoldfastError(error, 'forbidden') && /chmod 600/.test(error.remedy!),
    );
  }));

test('a damaged file is refused, never replaced, and never quoted', () =>
  inFolder(async (folder, path) => {
    await openIdentity(folder, random);
    const secret = JSON.parse(await readFile(path, 'utf8')).signSeed as string;
    const broken = (await readFile(path, 'utf8')).replace('"version": 1', '"version": 9');
    await writeFile(path, broken);
    await assert.rejects(openIdentity(folder, random), (error) => {
      assert.ok(isHoldfastError(error, 'damaged'));
      assert.ok(!JSON.stringify([error.message, error.data, String(error.cause)]).includes(secret));
      return true;
    });
    assert.equal(await readFile(path, 'utf8'), broken);
  }));
