import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createAdaptorServer } from '@hono/node-server';
import { Hono } from 'hono';
import { freshIds } from '#app/context.ts';
import { createActivationToken } from '#app/proxies.ts';
import { receiveTasks } from '#app/proxy-tasks.ts';
import { createRun } from '#app/runs.ts';
import { type ErrorCode, isHoldfastError } from '#contract/errors.ts';
import { heartbeatResponse } from '#contract/proxy-protocol.ts';
import { ControlPlane } from '#edge/agent/control-plane.ts';
import { enrol } from '#edge/agent/enrolment.ts';
import { GrantBlobs } from '#edge/agent/grant-blobs.ts';
import { HttpClient } from '#edge/agent/http-client.ts';
import { openIdentity } from '#edge/agent/identity.ts';
import { RemoteVaultState } from '#edge/agent/remote-vault-state.ts';
import { blobServer } from '#local/blob-server.ts';
import { startControlPlane } from '#local/main.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom as random } from '#local/system-random.ts';
import type { Clock } from '#ports/clock.ts';

const patience = { firstWaitMs: 5, maxWaitMs: 20, totalMs: 10_000 };
const fails = (code: ErrorCode) => (error: unknown) => isHoldfastError(error, code) || assert.fail(String(error));

/**
 * A control plane in this process, a proxy with a job, and between them a relay that can lose requests and
 * answers. The relay changes the host only, which no signature covers.
 */
async function startSite(clock: Clock = systemClock) {
  const stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-agent-'));
  stack.defer(() => rm(folder, { recursive: true }));
  const plane = stack.use(await startControlPlane({ folder: join(folder, 'data'), port: 0, log: () => {} }));
  const relay = stack.adopt(await startRelay(plane.url), ({ server }) => {
    server.close();
    server.closeAllConnections();
  });
  const http = stack.adopt(new HttpClient(), (client) => client.close());
  const context = { tenant: plane.tenant.id };
  const { token } = await createActivationToken(plane.services, context, freshIds(systemClock, random), 600);
  const enrolment = { baseUrl: relay.url, http, folder, name: 'edge', version: '1', platform: 'test', patience };
  const identity = await enrol(enrolment, await openIdentity(folder, random), token, { clock: systemClock, random });
  const api = new ControlPlane({ baseUrl: relay.url, http, clock, random, identity, patience });
  return {
    plane,
    relay,
    http,
    api,
    identity,
    context,
    proxy: identity.proxy!,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** The site with a backup job that its proxy has received, and the vault as the proxy sees it. */
async function startJob() {
  const site = await startSite();
  const { plane, context, proxy, api, http, relay } = site;
  const ids = freshIds(systemClock, random);
  const call = async (path: string, body: unknown) => {
    const key = (await readFile(plane.apiKeyFile, 'utf8')).trim();
    const response = await fetch(plane.url + path, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { authorization: `Bearer ${key}` },
    });
    return (await response.json()) as { id: never };
  };
  const source = await call('/v1/sources', { kind: 'image', name: 's', proxy });
  const machine = await call('/v1/machines', { name: 'm', source: source.id, disks: [{ name: 'd', path: '/d' }] });
  const { jobs } = await createRun(plane.services, context, ids, { machines: [machine.id] });
  const job = jobs[0]!.id;
  await receiveTasks(
    plane.services,
    { ...context, proxy },
    { waitSeconds: 10, max: 1, restarted: false },
    new AbortController().signal,
  );
  const relayedHttp = {
    send: (request: Parameters<HttpClient['send']>[0]) =>
      http.send({ ...request, url: request.url.replace(plane.url, relay.url) }),
  } as HttpClient;
  const blobs = new GrantBlobs({ plane: api, http: relayedHttp, clock: systemClock, random, job, patience });
  const state = new RemoteVaultState(api, job);
  return { ...site, relayedHttp, blobs, state, job, machine: machine.id as `vm_${string}` };
}

async function startRelay(target: string) {
  const faults: ((request: Request) => 'lose-request' | 'lose-answer' | number | undefined)[] = [];
  const fetchOne = async (request: Request): Promise<Response> => {
    const fault = faults.map((found) => found(request)).find((found) => found !== undefined);
    if (typeof fault === 'number') return new Response('fault', { status: fault });
    if (fault === 'lose-request') return Promise.reject(new Error('lost'));
    const url = new URL(request.url);
    const body = request.method === 'GET' ? undefined : Buffer.from(await request.arrayBuffer());
    const headers = new Headers(request.headers);
    headers.delete('host');
    headers.delete('connection');
    const answer = await fetch(target + url.pathname + url.search, {
      method: request.method,
      headers,
      ...(body ? { body } : {}),
    });
    const content = await answer.arrayBuffer();
    if (fault === 'lose-answer') return new Response('lost on the way', { status: 502 });
    return new Response(answer.status === 204 ? null : content, { status: answer.status, headers: answer.headers });
  };
  const server = createAdaptorServer({ fetch: fetchOne }) as Server;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, faults, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** A fault that strikes the first `times` matching requests. */
function strikes(times: number, matches: (request: Request) => boolean, what: 'lose-request' | 'lose-answer' | number) {
  let left = times;
  return (request: Request) => (matches(request) && left-- > 0 ? what : undefined);
}

test('objects go up and come down through grants, whole and by range', async () => {
  await using site = await startJob();
  const content = randomBytes(300_000);
  const parts = Array.from({ length: 100 }, (_, i) => content.subarray(i * 3000, (i + 1) * 3000));
  assert.equal(await site.blobs.putIfAbsent('packs/ab/abcd', parts), 'created');
  assert.equal(await site.blobs.putIfAbsent('packs/ab/abcd', [Buffer.from('other')]), 'exists');
  assert.ok(content.equals((await site.blobs.get('packs/ab/abcd'))!.content));
  const ranges = await Promise.all(
    Array.from({ length: 40 }, (_, i) => site.blobs.getRange('packs/ab/abcd', i * 7000, 5000)),
  );
  for (const [i, range] of ranges.entries()) assert.ok(content.subarray(i * 7000, i * 7000 + 5000).equals(range));
  assert.equal((await site.blobs.head('packs/ab/abcd'))?.sizeBytes, 300_000);
  assert.equal(await site.blobs.head('packs/ab/none'), undefined);
  assert.equal(await site.blobs.get('packs/ab/none'), undefined);
  assert.deepEqual((await site.blobs.list('packs/')).blobs, [{ key: 'packs/ab/abcd', sizeBytes: 300_000 }]);
  await assert.rejects(site.blobs.getRange('packs/ab/none', 0, 10), fails('missing'));
  await assert.rejects(site.blobs.getRange('packs/ab/abcd', 299_999, 10), fails('damaged'));
});

test('a proxy can neither overwrite nor delete nor forge a point', async () => {
  await using site = await startJob();
  await assert.rejects(site.blobs.delete('packs/ab/abcd'), fails('forbidden'));
  await assert.rejects(site.blobs.replaceIf('vault'), fails('forbidden'));
  for (const key of ['vault', 'points/vm_1/pnt_1', 'state/vault.json', 'packsx/1']) {
    await assert.rejects(site.blobs.putIfAbsent(key, [Buffer.from('x')]), fails('forbidden'), key);
  }
  for (const key of ['packs/../vault', '../other/vault', 'packs//x', '/etc/passwd']) {
    await assert.rejects(site.blobs.putIfAbsent(key, [Buffer.from('x')]), fails('usage'), key);
    await assert.rejects(site.blobs.get(key), fails('usage'), key);
  }
});

test('an upload survives refusals, lost requests and lost answers, and says rightly whose object it is', async () => {
  await using site = await startJob();
  const isPut = (request: Request) => request.method === 'PUT';
  for (const [i, fault] of ([503, 500, 403, 'lose-request', 'lose-answer'] as const).entries()) {
    site.relay.faults.splice(0, 1, strikes(2, isPut, fault));
    const content = randomBytes(5000);
    assert.equal(await site.blobs.putIfAbsent(`packs/00/f${i}`, [content]), 'created', String(fault));
    assert.ok(content.equals((await site.blobs.get(`packs/00/f${i}`))!.content));
  }
  site.relay.faults.splice(0, 1, strikes(1, isPut, 'lose-answer'));
  await site.blobs.putIfAbsent('packs/00/mine', [Buffer.from('first')]);
  for (const fault of ['lose-request', 'lose-answer'] as const) {
    site.relay.faults.splice(0, 1, strikes(1, isPut, fault));
    assert.equal(await site.blobs.putIfAbsent('packs/00/mine', [Buffer.from('another length')]), 'exists', fault);
  }
});

test('the end of a job ends a transfer that waits for an outage to pass, whatever its caller’s own signal says', async () => {
  await using site = await startJob();
  const stop = new AbortController();
  const { api: plane, relayedHttp: http, job } = site;
  const blobs = new GrantBlobs({ plane, http, clock: systemClock, random, job, patience, signal: stop.signal });
  site.relay.faults.push((request) => (request.method === 'PUT' ? 503 : undefined));
  const upload = blobs.putIfAbsent('packs/00/a', [Buffer.from('x')], { signal: new AbortController().signal });
  setTimeout(() => stop.abort(new Error('the job was stopped')), 50);
  const startMs = performance.now();
  await assert.rejects(upload, /the job was stopped/);
  assert.ok(performance.now() - startMs < patience.totalMs / 2);
});

test('a download survives refusals and lost answers', async () => {
  await using site = await startJob();
  await site.blobs.putIfAbsent('packs/00/a', [Buffer.from('0123456789')]);
  for (const fault of [503, 403, 'lose-request', 'lose-answer'] as const) {
    site.relay.faults.splice(
      0,
      1,
      strikes(2, (request) => request.url.includes('/objects/v1'), fault),
    );
    assert.equal(Buffer.from(await site.blobs.getRange('packs/00/a', 2, 3)).toString(), '234');
  }
});

test('bytes that change on their way up are noticed by the store and sent again', async () => {
  await using site = await startJob();
  const content = Buffer.from('as it was meant');
  const sha256 = createHash('sha256').update('something else').digest();
  await assert.rejects(
    new GrantBlobs({
      plane: site.api,
      http: site.http,
      clock: systemClock,
      random,
      job: site.job,
      patience: { ...patience, totalMs: 100 },
    }).putIfAbsent('packs/00/x', [content], { sha256 }),
    fails('damaged'),
  );
  assert.equal(await site.blobs.head('packs/00/x'), undefined);
});

test('calls survive an outage, and repeat themselves without harm when only the answer was lost', async () => {
  await using site = await startJob();
  site.relay.faults.push(strikes(3, (request) => request.url.includes('/v1/proxy/'), 'lose-request'));
  assert.deepEqual(await site.state.generation(), { number: 0, segments: [] });
  site.relay.faults.splice(
    0,
    1,
    strikes(1, (request) => request.url.endsWith('/sessions'), 'lose-answer'),
  );
  const session = await site.state.openSession(site.machine, 'x');
  assert.equal(session.token, 2, 'the first session, whose answer was lost, is ended');
  await site.state.renew(session);
  await site.state.abandon(session);
  await assert.rejects(site.state.renew(session), fails('fenced'));
});

test('a proxy whose clock is wrong by an hour still signs in', async () => {
  for (const offMs of [-3_600_000, 3_600_000]) {
    const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + offMs };
    await using site = await startSite(clock);
    await site.api.post('/v1/proxy/heartbeat', { version: '2', running: [] }, heartbeatResponse);
  }
});

test('a token that the control plane no longer takes is replaced by a new one under way', async () => {
  await using site = await startSite();
  const beat = () => site.api.post('/v1/proxy/heartbeat', { version: '2', running: [] }, heartbeatResponse);
  await beat();
  let signedIn = 0;
  site.relay.faults.push((request) => {
    if (request.url.endsWith('/token')) signedIn++;
    return undefined;
  });
  site.relay.faults.push(strikes(1, (request) => request.url.endsWith('/heartbeat'), 401));
  await beat();
  assert.equal(signedIn, 1);
});

test('an object server without valid grants answers nothing', async () => {
  const app = new Hono();
  app.route('/objects', blobServer({ blobs: undefined as never, secret: randomBytes(32), clock: systemClock }));
  assert.equal((await app.request('/objects/v1/x/vault')).status, 403);
});
