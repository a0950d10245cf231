import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildApi } from '#app/api.ts';
import { createApiKey } from '#app/api-keys.ts';
import { freshIds, type TenantContext } from '#app/context.ts';
import { createActivationToken, enrolProxy } from '#app/proxies.ts';
import type { ProxyContext } from '#app/proxy-tokens.ts';
import { DEFAULT_SETTINGS, type LogEntry, type Services, type Settings } from '#app/services.ts';
import { ensureDefaultTenant } from '#app/tenants.ts';
import { createVault } from '#app/vaults.ts';
import type { Id } from '#contract/ids.ts';
import { enrolmentText } from '#contract/proxy-protocol.ts';
import type { Tenant } from '#contract/tenants.ts';
import { isoTime } from '#contract/time.ts';
import { makeBlobGrants } from '#local/blob-grants.ts';
import { Database } from '#local/database/database.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { openKeyFile } from '#local/key-file.ts';
import { SqliteQueue } from '#local/sqlite-queue.ts';
import { SqliteTable } from '#local/sqlite-table.ts';
import { systemRandom as random } from '#local/system-random.ts';
import { WorkflowInterpreter } from '#local/workflow-interpreter/interpreter.ts';
import type { Table } from '#ports/table.ts';
import { machineSchema } from '#workflows/asl.ts';
import { DEFAULT_JOB_MACHINE_SETTINGS, type JobMachineSettings, jobMachines } from '#workflows/job-machines.ts';
import { performStep } from '#workflows/steps.ts';
import { type ManualClock, manualClock } from '../conformance/manual-clock.ts';

/** The application on real adapters and a clock that only the test moves. */
export interface Plane extends AsyncDisposable {
  readonly services: Services;
  readonly clock: ManualClock;
  readonly tenant: Tenant;
  readonly context: TenantContext;
  readonly apiKey: string;
  readonly logged: LogEntry[];
  /** A request as it comes in over HTTP. */
  request(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Response>;
  /** A proxy with keys of its own. */
  enrol(name?: string): Promise<ProxyContext>;
  /** A machine with one disk on the proxy. */
  addMachine(proxy: Id<'proxy'>, name?: string): Promise<Id<'machine'>>;
  /** Moves the clock in steps until it holds. */
  until(what: string, holds: () => Promise<boolean>, stepMs?: number): Promise<void>;
}

export interface PlaneOptions {
  readonly settings?: Partial<Settings & JobMachineSettings>;
  /** Wraps the table, to make it fail. */
  readonly table?: (table: Table) => Table;
  readonly startWorkflows?: boolean;
}

export async function startPlane(options: PlaneOptions = {}): Promise<Plane> {
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-plane-'));
  stack.defer(() => rm(folder, { recursive: true }));
  const clock = manualClock();
  const settings = { ...DEFAULT_SETTINGS, ...DEFAULT_JOB_MACHINE_SETTINGS, ...options.settings };
  const database = new Database(join(folder, 'db'));
  stack.defer(() => database.close());
  const keys = await openKeyFile(join(folder, 'key'), random);
  const blobs = await openFileBlobs(join(folder, 'objects'), { clock, random });
  stack.defer(() => blobs.close());
  const logged: LogEntry[] = [];
  const table = new SqliteTable(database, clock);
  const machines = jobMachines(settings);
  const holder: { services?: Services } = {};
  const workflows = new WorkflowInterpreter({
    database,
    clock,
    random,
    machines: {
      ProtectMachine: machineSchema.parse(machines.ProtectMachine),
      RestoreRun: machineSchema.parse(machines.RestoreRun),
    },
    handler: (resource, input) => performStep(holder.services!, resource, input),
  });
  stack.defer(() => workflows.close());
  const services: Services = {
    table: options.table?.(table) ?? table,
    queue: new SqliteQueue(database, clock, random),
    grants: makeBlobGrants({ baseUrl: 'http://127.0.0.1:1/objects', secret: keys.secretFor('grants'), clock }),
    blobs,
    keys,
    workflows,
    clock,
    random,
    settings,
    log: (entry) => logged.push(entry),
  };
  holder.services = services;
  const tenant = await ensureDefaultTenant(services);
  const context = { tenant: tenant.id };
  const { key: apiKey } = await createApiKey(services, context, 'test');
  const api = buildApi(services);
  if (options.startWorkflows ?? true) await workflows.resume();
  const all = stack.move();
  const request: Plane['request'] = async (method, path, body, headers = {}) =>
    api.request(path, {
      method,
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
  const json = async <T>(method: string, path: string, body?: unknown) =>
    (await (await request(method, path, body)).json()) as T;
  return {
    services,
    clock,
    tenant,
    context,
    apiKey,
    logged,
    request,
    enrol: (name = 'edge') => enrolNewProxy(services, context, name),
    async addMachine(proxy, name = 'mail') {
      const source = await json<{ id: string }>('POST', '/v1/sources', { kind: 'image', name: 'files', proxy });
      const body = { name, source: source.id, disks: [{ name: 'root', path: '/disks/root.img' }] };
      return (await json<{ id: Id<'machine'> }>('POST', '/v1/machines', body)).id;
    },
    async until(what, holds, stepMs = 0) {
      for (let tries = 0; tries < 4000; tries++) {
        if (await holds()) return;
        if (stepMs > 0 && tries % 10 === 9) clock.advance(stepMs);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      throw new Error(`never: ${what}`);
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

/** Enrols a proxy with fresh keys. */
export async function enrolNewProxy(services: Services, context: TenantContext, name = 'edge'): Promise<ProxyContext> {
  const { token } = await createActivationToken(services, context, freshIds(services.clock, random), 3600);
  const signing = generateKeyPairSync('ed25519');
  const publicKey = signing.publicKey.export({ format: 'jwk' }).x!;
  const sealKey = generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' }).x!;
  const proof = sign(null, Buffer.from(enrolmentText(publicKey, sealKey, token)), signing.privateKey).toString(
    'base64url',
  );
  const request = { activationToken: token, name, version: '1', platform: 'test', publicKey, sealKey, proof };
  const { proxy, tenant } = await enrolProxy(services, request);
  return { proxy, tenant };
}

/** Another tenant in the same table, with an API key. */
export async function addTenant(services: Services): Promise<TenantContext & { readonly apiKey: string }> {
  const ids = freshIds(services.clock, services.random);
  const [tenant, vault] = [ids.make('tenant'), ids.make('vault')];
  const createdAt = isoTime(services.clock.nowMs());
  const value = { id: tenant, kind: 'customer', name: `other ${randomBytes(2).toString('hex')}`, vault, createdAt };
  await services.table.put({ partition: 'tenants', sort: tenant }, value, { ifAbsent: true });
  await createVault(services, { tenant }, vault);
  return { tenant, apiKey: (await createApiKey(services, { tenant }, 'other')).key };
}
