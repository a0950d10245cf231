import assert from 'node:assert/strict';
import { test } from 'node:test';
import { proxyOperations } from '#app/proxy-operations.ts';
import { tenantOperations } from '#app/tenant-operations.ts';
import { ID_PREFIXES, type IdKind } from '#contract/ids.ts';
import { API_BODY_MAX_BYTES } from '#contract/limits.ts';
import { problemSchema } from '#contract/problem.ts';
import { addTenant, type Plane, startPlane } from './plane.ts';

async function problemOf(response: Response) {
  assert.equal(response.headers.get('content-type'), 'application/problem+json');
  return problemSchema.parse(await response.json());
}

async function jsonOf<T = Record<string, string>>(response: Response): Promise<T> {
  assert.ok(response.ok, `${response.status} ${await response.clone().text()}`);
  return (await response.json()) as T;
}

test('whatever is wrong with a request, the answer is a problem with code, remedy and request id', async () => {
  await using plane = await startPlane();
  const cases: [expected: number, code: string, method: string, path: string, body?: unknown][] = [
    [404, 'not-found', 'GET', '/v1/nothing'],
    [404, 'not-found', 'DELETE', '/v1/machines'],
    [400, 'usage', 'POST', '/v1/sources', '{"kind":'],
    [400, 'usage', 'POST', '/v1/sources', ''],
    [400, 'usage', 'POST', '/v1/sources', { kind: 'vsphere', name: 'x' }],
    [400, 'usage', 'POST', '/v1/sources', { kind: 'image', name: 'a\u0000b', proxy: 'pxy_01JD0000000000000000000000' }],
    [400, 'usage', 'GET', '/v1/machines/vm_1'],
    [400, 'usage', 'GET', '/v1/machines?limit=0'],
    [400, 'usage', 'GET', '/v1/machines?cursor=zzz'],
    [
      400,
      'usage',
      'POST',
      '/v1/machines',
      { name: 'x', source: 'src_01JD0000000000000000000000', disks: [{ name: 'a', path: 'relative' }] },
    ],
    [
      404,
      'not-found',
      'POST',
      '/v1/machines',
      { name: 'x', source: 'src_01JD0000000000000000000000', disks: [{ name: 'a', path: '/a' }] },
    ],
    [404, 'not-found', 'GET', '/v1/jobs/job_01JD0000000000000000000000'],
    [413, 'limit', 'POST', '/v1/sources', `{"name":"${'x'.repeat(API_BODY_MAX_BYTES)}"}`],
  ];
  for (const [status, code, ...request] of cases) {
    const problem = await problemOf(await plane.request(...request));
    assert.deepEqual([problem.status, problem.code], [status, code], JSON.stringify(request).slice(0, 100));
    assert.match(problem.requestId, /^req_/);
  }
  assert.deepEqual(plane.logged, [], 'none of these is a fault of ours');
});

test('another tenant’s ids answer exactly like ids that nobody has', async () => {
  await using plane = await startPlane();
  const proxy = await plane.enrol();
  const machine = await plane.addMachine(proxy.proxy);
  const run = await jsonOf<{ id: string; jobs: { id: string }[] }>(
    await plane.request('POST', '/v1/runs', { machines: [machine] }),
  );
  const policy = await jsonOf(
    await plane.request('POST', '/v1/policies', {
      name: 'p',
      machines: [machine],
      schedule: { kind: 'interval', minutes: 60 },
    }),
  );
  const source = (await jsonOf<{ items: { id: string }[] }>(await plane.request('GET', '/v1/sources'))).items[0]!;
  const other = await addTenant(plane.services);
  const headers = { authorization: `Bearer ${other.apiKey}` };
  const theirs: Record<string, string> = {
    proxy: proxy.proxy,
    machine,
    run: run.id,
    job: run.jobs[0]!.id,
    policy: policy.id!,
    source: source.id,
  };
  const bodies: Record<string, (ids: Record<string, string>) => unknown> = {
    createSource: (ids) => ({ kind: 'image', name: 'x', proxy: ids.proxy }),
    createMachine: (ids) => ({ name: 'x', source: ids.source, disks: [{ name: 'a', path: '/a' }] }),
    createPolicy: (ids) => ({ name: 'x', machines: [ids.machine], schedule: { kind: 'interval', minutes: 5 } }),
    createRun: (ids) => ({ machines: [ids.machine] }),
    createRestore: (ids) => ({ machine: ids.machine, target: { path: '/a' } }),
  };
  const nobody = Object.fromEntries(
    Object.keys(theirs).map((kind) => [kind, `${ID_PREFIXES[kind as IdKind]}_01JD0000000000000000000000`]),
  );
  const before = await snapshot(plane);
  let tried = 0;
  for (const operation of tenantOperations(plane.services)) {
    const body = bodies[operation.id];
    if (!operation.path.includes('{') && body === undefined) continue;
    if (operation.id === 'getPoint') continue;
    const ask = async (ids: Record<string, string>) => {
      const path = operation.path.replace(/\{(\w+)\}/g, (_, kind) => ids[kind] ?? '');
      const problem = await problemOf(await plane.request(operation.method.toUpperCase(), path, body?.(ids), headers));
      const { requestId: _, detail, ...rest } = problem;
      return { ...rest, detail: detail.replace(/\w+_[0-9A-Z]{26}/g, 'ID') };
    };
    const answer = await ask(theirs);
    assert.equal(answer.status, 404, operation.id);
    assert.deepEqual(answer, await ask(nobody), operation.id);
    tried++;
  }
  assert.ok(tried >= 10, `${tried} operations`);
  assert.deepEqual(await snapshot(plane), before);
});

async function snapshot(plane: Plane) {
  const get = async (path: string) =>
    (await jsonOf<{ items: { id: string }[] }>(await plane.request('GET', path))).items.map(({ id }) => id);
  return Promise.all(['/v1/sources', '/v1/machines', '/v1/policies', '/v1/runs', '/v1/points'].map(get));
}

test('fifty identical requests with one Idempotency-Key make one thing and hear one answer', async () => {
  await using plane = await startPlane();
  const { proxy } = await plane.enrol();
  const body = { kind: 'image', name: 'files', proxy };
  const ticking = setInterval(() => plane.clock.advance(5), 1);
  try {
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => plane.request('POST', '/v1/sources', body, { 'idempotency-key': 'one' })),
    );
    const texts = new Set(await Promise.all(answers.map((answer) => answer.text())));
    assert.equal(texts.size, 1, [...texts].join('\n'));
    assert.deepEqual(new Set(answers.map((answer) => answer.status)), new Set([201]));
  } finally {
    clearInterval(ticking);
  }
  const { items } = await jsonOf<{ items: unknown[] }>(await plane.request('GET', '/v1/sources'));
  assert.equal(items.length, 1);
  const changed = await plane.request('POST', '/v1/sources', { ...body, name: 'others' }, { 'idempotency-key': 'one' });
  assert.match((await problemOf(changed)).detail, /another request/);
});

test('a request whose process died half-way is repeated into the same thing', async () => {
  let failAfter = Number.POSITIVE_INFINITY;
  await using plane = await startPlane({
    table: (table) => ({
      get: (key) => table.get(key),
      query: (...of) => table.query(...of),
      delete: (...of) => table.delete(...of),
      put: async (key, value, condition) => {
        // The process dies when the answer is to be kept: all later writes fail.
        if (key.partition === 'idempotency' && failAfter <= 0) throw new Error('died');
        return table.put(key, value, condition);
      },
      transact: async (actions) => {
        await table.transact(actions);
        failAfter--;
      },
    }),
  });
  const { proxy } = await plane.enrol();
  const body = { kind: 'image', name: 'files', proxy };
  const headers = { 'idempotency-key': 'two' };
  failAfter = 1;
  assert.equal((await plane.request('POST', '/v1/sources', body, headers)).status, 500);
  failAfter = Number.POSITIVE_INFINITY;
  plane.clock.advance(31_000);
  const source = await jsonOf(await plane.request('POST', '/v1/sources', body, headers));
  const { items } = await jsonOf<{ items: { id: string }[] }>(await plane.request('GET', '/v1/sources'));
  assert.deepEqual(
    items.map(({ id }) => id),
    [source.id],
  );
});

test('a list is walked page by page with opaque cursors that fit no other list', async () => {
  await using plane = await startPlane();
  const { proxy } = await plane.enrol();
  const made: string[] = [];
  for (let i = 0; i < 7; i++) {
    plane.clock.advance(1);
    made.push((await jsonOf(await plane.request('POST', '/v1/sources', { kind: 'image', name: `s${i}`, proxy }))).id!);
  }
  const seen: string[] = [];
  let next = '';
  do {
    const page = await jsonOf<{ items: { id: string }[]; next?: string }>(
      await plane.request('GET', `/v1/sources?limit=3${next}`),
    );
    assert.ok(page.items.length <= 3);
    seen.push(...page.items.map(({ id }) => id));
    next = page.next === undefined ? '' : `&cursor=${page.next}`;
    if (next !== '') assert.equal((await plane.request('GET', `/v1/machines?limit=3${next}`)).status, 400);
  } while (next !== '');
  assert.deepEqual(seen, made);
});

test('a job shows nothing that only the control plane knows', async () => {
  await using plane = await startPlane();
  const { proxy } = await plane.enrol();
  const machine = await plane.addMachine(proxy);
  const run = await jsonOf<{ jobs: { id: string }[] }>(
    await plane.request('POST', '/v1/runs', { machines: [machine] }),
  );
  const path = `/v1/jobs/${run.jobs[0]!.id}`;
  await plane.until('dispatched', async () => (await (await plane.request('GET', path)).text()).includes('dispatched'));
  const job = await jsonOf(await plane.request('GET', path));
  assert.deepEqual(Object.keys(job).sort(), ['cancelRequested', 'createdAt', 'id', 'proxy', 'run', 'state', 'work']);
});

test('the OpenAPI document describes every operation, with its problem answer', async () => {
  await using plane = await startPlane();
  const document = await jsonOf<{
    openapi: string;
    paths: Record<string, Record<string, { operationId: string; responses: object }>>;
  }>(await plane.request('GET', '/v1/openapi.json', undefined, { authorization: '' }));
  assert.equal(document.openapi, '3.1.0');
  const described = Object.values(document.paths).flatMap((path) => Object.values(path));
  const operations = [...tenantOperations(plane.services), ...proxyOperations(plane.services)];
  assert.deepEqual(described.map(({ operationId }) => operationId).sort(), operations.map(({ id }) => id).sort());
  for (const { responses } of described) assert.ok('default' in responses);
  const text = JSON.stringify(document);
  for (const [, name] of text.matchAll(/"#\/components\/schemas\/(\w+)"/g))
    assert.ok(text.includes(`"${name}":`), name);
});

test('without a valid key nothing is answered, whatever the rest of the request', async () => {
  await using plane = await startPlane();
  for (const operation of [...tenantOperations(plane.services), ...proxyOperations(plane.services)]) {
    if (operation.audience === 'public') continue;
    const path = operation.path.replace(/\{\w+\}/g, 'x');
    const problem = await problemOf(
      await plane.request(operation.method.toUpperCase(), path, operation.method === 'post' ? '{' : undefined, {
        authorization: 'Bearer hfk.x.y',
      }),
    );
    assert.deepEqual([problem.status, problem.code], [401, 'unauthorized'], operation.id);
  }
});
