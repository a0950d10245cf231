import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Operation } from '#app/operation.ts';
import { proxyOperations } from '#app/proxy-operations.ts';
import { makeBearer } from '#app/secrets.ts';
import { tenantOperations } from '#app/tenant-operations.ts';
import { ID_PREFIXES, type IdKind } from '#contract/ids.ts';
import { problemSchema } from '#contract/problem.ts';
import { type Plane, startPlane } from './plane.ts';

/** Values that come near what the schemas want, with wrong turns in between. */
function nearlyValid(ids: readonly string[]): fc.Arbitrary<unknown> {
  const leaf = fc.oneof(
    fc.constantFrom(
      ...ids,
      'image',
      'interval',
      'cron',
      'latest',
      '0 2 * * *',
      'Asia/Seoul',
      '/disks/a',
      '/dev/null',
      'packs/00/a',
      'x\u0000y',
      '',
    ),
    fc.integer({ min: -5, max: 70_000 }),
    fc.boolean(),
    fc.constant(null),
    fc.string({ maxLength: 20, unit: 'grapheme' }),
    fc.base64String({ maxLength: 44 }),
  );
  const names = fc.constantFrom(
    'name',
    'kind',
    'proxy',
    'source',
    'disks',
    'path',
    'machine',
    'machines',
    'policy',
    'point',
    'target',
    'schedule',
    'minutes',
    'expression',
    'timeZone',
    'ttlSeconds',
    'diskIndex',
    'rollback',
    'holder',
    'token',
    'segments',
    'key',
    'keys',
    'objects',
    'sha256',
    'lengthBytes',
    'sizeBytes',
    'outcome',
    'error',
    'code',
    'message',
    'stats',
    'progress',
    'receipt',
    'max',
    'waitSeconds',
    'assertion',
    'activationToken',
    'publicKey',
    'sealKey',
    'proof',
    'version',
    'platform',
    'running',
    'pointKey',
    '__proto__',
  );
  return fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      leaf,
      tie('object'),
      fc.array(tie('value'), { maxLength: 3 }),
    ),
    object: fc.dictionary(names, tie('value'), { maxKeys: 7 }),
  })).object as fc.Arbitrary<unknown>;
}

/** A body that the operation accepts, where one is easily made. */
const VALID: Record<string, (ids: Record<string, string>) => Record<string, unknown>> = {
  createSource: (ids) => ({ kind: 'image', name: 'x', proxy: ids.proxy }),
  createMachine: (ids) => ({ name: 'x', source: ids.source, disks: [{ name: 'a', path: '/a' }] }),
  createPolicy: (ids) => ({
    name: 'x',
    machines: [ids.machine],
    schedule: { kind: 'cron', expression: '0 2 * * *', timeZone: 'UTC' },
  }),
  createRun: (ids) => ({ machines: [ids.machine] }),
  createRestore: (ids) => ({ machine: ids.machine, target: { path: '/a' } }),
  openSession: (ids) => ({ machine: ids.machine, holder: 'x' }),
  grantUploads: () => ({
    objects: [{ key: 'packs/00/a', lengthBytes: 1, sha256: Buffer.alloc(32).toString('base64') }],
  }),
  grantDownloads: () => ({ keys: ['vault'] }),
  headObjects: () => ({ keys: ['vault'] }),
  heartbeatJob: () => ({}),
  completeJob: () => ({ outcome: { kind: 'backup', point: 'pnt_01JD0000000000000000000000', disks: [], stats: {} } }),
};

test('no request, however strange, is answered with a fault of ours or outside the agreed form', async () => {
  await using plane = await startPlane();
  const { proxy } = await plane.enrol();
  const machine = await plane.addMachine(proxy);
  const json = async (method: string, path: string, body?: unknown) =>
    (await (await plane.request(method, path, body)).json()) as never;
  const run = (await json('POST', '/v1/runs', { machines: [machine] })) as { id: string; jobs: { id: string }[] };
  const source = ((await json('GET', '/v1/sources')) as { items: { id: string }[] }).items[0]!.id;
  const ids: Record<string, string> = {
    proxy,
    machine,
    source,
    run: run.id,
    job: run.jobs[0]!.id,
    ...Object.fromEntries(
      ['policy', 'point', 'session'].map((kind) => [kind, `${ID_PREFIXES[kind as IdKind]}_01JD0000000000000000000000`]),
    ),
  };
  const bearers = { tenant: plane.apiKey, proxy: await accessToken(plane, proxy), public: 'none' };
  const operations = [...tenantOperations(plane.services), ...proxyOperations(plane.services)].filter(
    ({ id }) => id !== 'receiveTasks',
  );
  const step = fc.record({
    operation: fc.constantFrom<Operation>(...operations),
    body: nearlyValid(Object.values(ids)),
    /** Start from a valid body and overwrite some of it. */
    graft: fc.boolean(),
    rightIds: fc.boolean(),
    query: fc.constantFrom(
      '',
      '?limit=1',
      '?limit=x',
      '?cursor=W10',
      '?machine=vm_1',
      '?prefix=points/',
      '?prefix=../',
      '?wait=0',
      '?wait=-1',
    ),
  });
  await fc.assert(
    fc.asyncProperty(step, async ({ operation, body, graft, rightIds, query }) => {
      const path = operation.path.replace(/\{(\w+)\}/g, (_, kind) => (rightIds ? ids[kind]! : 'tnt_none'));
      const start = graft ? (VALID[operation.id]?.(ids) ?? {}) : {};
      const content =
        operation.method === 'post'
          ? { ...start, ...(graft && Math.abs(JSON.stringify(body).length) % 2 ? {} : (body as object)) }
          : undefined;
      const authorization = `Bearer ${bearers[operation.audience as keyof typeof bearers]}`;
      const response = await plane.request(operation.method.toUpperCase(), path + query, content, { authorization });
      assert.ok(
        response.status < 500,
        `${operation.id}: ${response.status} ${await response.clone().text()} ${JSON.stringify(plane.logged.at(-1))}`,
      );
      if (response.status === 204) return;
      const answer = await response.json();
      if (response.ok) assert.deepEqual(operation.response?.safeParse(answer).error, undefined, operation.id);
      else problemSchema.parse(answer);
    }),
    { numRuns: 1500, seed: 7 },
  );
  assert.deepEqual(plane.logged, []);
});

async function accessToken(plane: Plane, proxy: string): Promise<string> {
  // The signing key of a test's proxy is not kept; a token is put where signing in would have put it.
  const bearer = makeBearer('hft', 'tok_01JD0000000000000000000000', plane.services.random);
  const record = { tenant: plane.tenant.id, proxy, hash: bearer.hash, expiresAtMs: plane.clock.nowMs() + 3_600_000 };
  await plane.services.table.put({ partition: 'auth#access', sort: 'tok_01JD0000000000000000000000' }, record);
  return bearer.text;
}
