import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { CompactSign } from 'jose';
import type { Id } from '#contract/ids.ts';
import { ASSERTION_AUDIENCE, enrolmentText } from '#contract/proxy-protocol.ts';
import { eventually, isAlive, type RunningUp, startUp, temporaryFolder } from './running-up.ts';

const MIB = 1024 * 1024;

/** A disk with data that does not compress, holes between, and an odd end; the same for the same seed. */
async function makeDisk(path: string, seed: string, dataBytes: number): Promise<string> {
  const file = await open(path, 'w');
  const hash = createHash('sha256');
  try {
    let block = createHash('sha512').update(seed).digest();
    for (let at = 0; at < dataBytes; at += MIB) {
      const piece = Buffer.alloc(MIB);
      for (let i = 0; i < MIB; i += 64 * 64) {
        block = createHash('sha512').update(block).digest();
        for (let j = 0; j < 64; j++) block.copy(piece, i + j * 64);
        piece.writeUInt32LE((at + i) % 2 ** 32, i + 1024);
      }
      await file.write(piece, 0, MIB, at * 2);
    }
    await file.truncate(dataBytes * 2 + 12_345);
  } finally {
    await file.close();
  }
  hash.update(await readFile(path));
  return hash.digest('hex');
}

const hashOf = async (path: string) =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex');

async function addMachine(up: RunningUp, disk: string): Promise<Id<'machine'>> {
  const source = await up.client.createSource({ kind: 'image', name: 'files', proxy: up.proxy });
  const machine = await up.client.createMachine({
    name: 'mail',
    source: source.id,
    disks: [{ name: 'root', path: disk }],
  });
  return machine.id;
}

async function post(up: RunningUp, path: string, body: unknown, bearer?: string) {
  const response = await fetch(up.url + path, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
    },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as Record<string, string> };
}

describe('the embedded control plane with its proxy', { timeout: 120_000 }, () => {
  test('protects a machine, lists its points and restores each of them bit by bit', async () => {
    await using folder = await temporaryFolder();
    const disk = join(folder.path, 'disk.img');
    const before = await makeDisk(disk, 'one', 24 * MIB);
    await using up = await startUp(join(folder.path, 'data'));
    const machine = await addMachine(up, disk);

    const phases = new Set<string>();
    const first = await up.client.runNow([machine]);
    const full = await up.client.waitForJob(first.jobs[0]!.id, {
      onProgress: (job) => void phases.add(job.state.status),
    });
    assert.equal(full.state.status, 'succeeded', JSON.stringify(full.state));
    assert.ok(phases.has('succeeded') && phases.size > 1);

    const file = await open(disk, 'r+');
    await file.write(Buffer.alloc(9000, 'changed'), 0, 9000, 5 * MIB + 77);
    await file.close();
    const after = await hashOf(disk);
    const second = await up.client.runNow([machine]);
    const increment = await up.client.waitForJob(second.jobs[0]!.id);
    assert.ok(increment.state.status === 'succeeded' && increment.state.outcome.kind === 'backup');
    assert.equal(increment.state.outcome.pointKind, 'incremental');

    const points = await up.client.listPoints(machine);
    assert.equal(points.length, 2);
    for (const [point, expected] of [
      [points[1]!, before],
      [points[0]!, after],
    ] as const) {
      const target = join(folder.path, `${point.id}.img`);
      const restore = await up.client.restore({ machine, point: point.id, target: { path: target } });
      const done = await up.client.waitForJob(restore.id);
      assert.equal(done.state.status, 'succeeded', JSON.stringify(done.state));
      assert.equal(await hashOf(target), expected);
    }

    const runs = await up.client.listRuns();
    assert.deepEqual(
      runs.map((run) => run.id),
      [second.id, first.id],
    );
    const proxy = await up.proxyPid();
    assert.equal(await up.stop(), 0);
    assert.ok(!isAlive(proxy), 'the proxy stops with its control plane');
    assert.equal(up.stderr(), '');
  });

  test('keeps no secret in clear: not in its database, not in a log, and key files to their owner', async () => {
    await using folder = await temporaryFolder();
    const data = join(folder.path, 'data');
    const disk = join(folder.path, 'disk.img');
    await makeDisk(disk, 'secret', MIB);
    await using up = await startUp(data);
    const machine = await addMachine(up, disk);
    await up.client.waitForJob((await up.client.runNow([machine])).jobs[0]!.id);
    await up.stop();
    for (const name of ['api-key', 'service-key', 'proxy/identity.json']) {
      assert.equal((await stat(join(data, name))).mode & 0o777, 0o600, name);
    }
    const identity = JSON.parse(await readFile(join(data, 'proxy/identity.json'), 'utf8'));
    const secrets = [up.apiKey.split('.')[2]!, identity.signSeed, identity.sealSeed, 'idKey', 'sealKeys'];
    const files = ['control-plane.db', 'proxy.log'].map((name) => join(data, name));
    for (const path of files) {
      const content = await readFile(path);
      for (const secret of secrets) assert.equal(content.indexOf(secret), -1, `${path}: ${secret.slice(0, 6)}…`);
    }
    assert.ok(!(await readdir(join(data, 'proxy'))).includes('activation-token'));
  });

  test('refuses wrong, used and replayed credentials, and tells why', async () => {
    await using folder = await temporaryFolder();
    await using up = await startUp(join(folder.path, 'data'));
    for (const bearer of [undefined, 'nonsense', `${up.apiKey.slice(0, -1)}x`, up.apiKey.replace('hfk', 'hft')]) {
      const { status, body } = await post(up, '/v1/runs', {}, bearer);
      assert.equal(status, 401);
      assert.equal(body.code, 'unauthorized');
      assert.ok(body.remedy && body.requestId);
    }
    const { body: token } = await post(up, '/v1/activation-tokens', {}, up.apiKey);
    const outsider = makeProxyKeys();
    const proxy = await post(up, '/v1/proxy/enrol', outsider.request(token.token!));
    assert.equal(proxy.status, 200);
    const again = await post(up, '/v1/proxy/enrol', outsider.request(token.token!));
    assert.equal(again.body.proxy, proxy.body.proxy, 'the same proxy may repeat its enrolment');
    const thief = await post(up, '/v1/proxy/enrol', makeProxyKeys().request(token.token!));
    assert.equal(thief.status, 401, 'a token serves one key pair');

    const id = proxy.body.proxy!;
    const now = Math.floor(Date.now() / 1000);
    const good = await outsider.assertion(id, { iat: now, exp: now + 60 });
    const access = await post(up, '/v1/proxy/token', { assertion: good });
    assert.equal(access.status, 200);
    assert.equal((await post(up, '/v1/proxy/token', { assertion: good })).status, 401, 'replayed');
    const bad = [
      await makeProxyKeys().assertion(id, { iat: now, exp: now + 60 }),
      await outsider.assertion(id, { iat: now - 4000, exp: now - 3940 }),
      await outsider.assertion(id, { iat: now, exp: now + 4000 }),
      await outsider.assertion(id, { iat: now, exp: now + 60 }, 'elsewhere'),
      await outsider.assertion(up.proxy, { iat: now, exp: now + 60 }),
      good.replace(/\.[^.]+$/, '.'),
    ];
    for (const assertion of bad) assert.ok((await post(up, '/v1/proxy/token', { assertion })).status >= 400);

    // A proxy sees nothing of another proxy's jobs, and its token opens no tenant's operation.
    const bearer = access.body.accessToken!;
    assert.equal((await post(up, '/v1/runs', {}, bearer)).status, 401);
    const disk = join(folder.path, 'disk.img');
    await makeDisk(disk, 'x', MIB);
    const machine = await addMachine(up, disk);
    const job = (await up.client.runNow([machine])).jobs[0]!.id;
    const foreign = await post(up, `/v1/proxy/jobs/${job}/progress`, {}, bearer);
    assert.equal(foreign.status, 404);
    await up.client.waitForJob(job);
  });

  test('refuses a second control plane on the same folder and goes on with the first', async () => {
    await using folder = await temporaryFolder();
    const data = join(folder.path, 'data');
    await using up = await startUp(data);
    await assert.rejects(startUp(data), /"code":"busy".*Another control plane/s);
    assert.equal((await up.client.listProxies()).length, 1);
  });

  test('a machine that cannot be read fails its job with the cause, and the next job works', async () => {
    await using folder = await temporaryFolder();
    const disk = join(folder.path, 'disk.img');
    await using up = await startUp(join(folder.path, 'data'));
    const machine = await addMachine(up, disk);
    const failed = await up.client.waitForJob((await up.client.runNow([machine])).jobs[0]!.id);
    assert.ok(failed.state.status === 'failed', failed.state.status);
    assert.ok(['unreadable', 'not-found'].includes(failed.state.error.code), failed.state.error.code);
    await makeDisk(disk, 'late', MIB);
    const next = await up.client.waitForJob((await up.client.runNow([machine])).jobs[0]!.id);
    assert.equal(next.state.status, 'succeeded');
  });
});

describe('killed at any moment', { timeout: 240_000 }, () => {
  for (const [round, delayMs] of [40, 350, 800, 1500].entries()) {
    test(`the proxy, ${delayMs} ms into a backup: the job still ends once, well, and restores`, async () => {
      await using folder = await temporaryFolder();
      const disk = join(folder.path, 'disk.img');
      const expected = await makeDisk(disk, `proxy ${round}`, 48 * MIB);
      await using up = await startUp(join(folder.path, 'data'));
      const machine = await addMachine(up, disk);
      const job = (await up.client.runNow([machine])).jobs[0]!.id;
      await pause(delayMs);
      process.kill(await up.proxyPid(), 'SIGKILL');
      await expectOneGoodEnd(up, machine, job, expected, join(folder.path, 'restored.img'));
    });
  }

  for (const [round, delayMs] of [20, 300, 900].entries()) {
    test(`the control plane, ${delayMs} ms into a backup: the next start takes it up`, async () => {
      await using folder = await temporaryFolder();
      const data = join(folder.path, 'data');
      const disk = join(folder.path, 'disk.img');
      const expected = await makeDisk(disk, `plane ${round}`, 48 * MIB);
      await using first = await startUp(data);
      const machine = await addMachine(first, disk);
      const job = (await first.client.runNow([machine])).jobs[0]!.id;
      await pause(delayMs);
      const orphan = await first.proxyPid();
      await first.stop('SIGKILL');
      await eventually('the proxy notices that its parent is gone', () => !isAlive(orphan));
      await using second = await startUp(data);
      await expectOneGoodEnd(second, machine, job, expected, join(folder.path, 'restored.img'));
    });
  }

  test('the proxy in the middle of a restore: it goes on and the disk is right', async () => {
    await using folder = await temporaryFolder();
    const disk = join(folder.path, 'disk.img');
    const target = join(folder.path, 'restored.img');
    const expected = await makeDisk(disk, 'restore', 96 * MIB);
    await using up = await startUp(join(folder.path, 'data'));
    const machine = await addMachine(up, disk);
    const backup = await up.client.waitForJob((await up.client.runNow([machine])).jobs[0]!.id);
    assert.equal(backup.state.status, 'succeeded');
    const restore = await up.client.restore({ machine, target: { path: target } });
    await pause(400);
    process.kill(await up.proxyPid(), 'SIGKILL');
    const ended = await up.client.waitForJob(restore.id);
    assert.equal(ended.state.status, 'succeeded', JSON.stringify(ended.state));
    assert.equal(await hashOf(target), expected);
  });
});

async function expectOneGoodEnd(
  up: RunningUp,
  machine: Id<'machine'>,
  job: Id<'job'>,
  expected: string,
  target: string,
) {
  const ended = await up.client.waitForJob(job);
  assert.equal(ended.state.status, 'succeeded', JSON.stringify(ended.state));
  const points = await up.client.listPoints(machine);
  assert.equal(points.length, 1, 'one job makes one point');
  const restore = await up.client.waitForJob((await up.client.restore({ machine, target: { path: target } })).id);
  assert.equal(restore.state.status, 'succeeded', JSON.stringify(restore.state));
  assert.equal(await hashOf(target), expected);
  // Nothing that comes late may change the end.
  assert.deepEqual((await up.client.getJob(job)).state, ended.state);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function makeProxyKeys() {
  const signing = generateKeyPairSync('ed25519');
  const sealing = generateKeyPairSync('x25519');
  const publicKey = signing.publicKey.export({ format: 'jwk' }).x!;
  const sealKey = sealing.publicKey.export({ format: 'jwk' }).x!;
  return {
    request: (activationToken: string) => ({
      activationToken,
      name: 'outsider',
      version: '1',
      platform: 'test',
      publicKey,
      sealKey,
      proof: sign(null, Buffer.from(enrolmentText(publicKey, sealKey, activationToken)), signing.privateKey).toString(
        'base64url',
      ),
    }),
    assertion: (proxy: string, times: { iat: number; exp: number }, aud = ASSERTION_AUDIENCE as string) =>
      new CompactSign(
        Buffer.from(JSON.stringify({ iss: proxy, sub: proxy, aud, ...times, jti: `jti-${Math.random()}-0000000` })),
      )
        .setProtectedHeader({ alg: 'EdDSA', kid: proxy })
        .sign(signing.privateKey),
  };
}
