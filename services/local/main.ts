import { once } from 'node:events';
import { open, readFile, rename, unlink } from 'node:fs/promises';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createAdaptorServer } from '@hono/node-server';
import { Hono } from 'hono';
import { buildApi } from '#app/api.ts';
import { createApiKey } from '#app/api-keys.ts';
import { DEFAULT_SETTINGS, type LogEntry, type Services, type Settings } from '#app/services.ts';
import { tick } from '#app/sweep.ts';
import { ensureDefaultTenant } from '#app/tenants.ts';
import { HoldfastError, reportOf } from '#contract/errors.ts';
import type { Tenant } from '#contract/tenants.ts';
import { machineSchema } from '#workflows/asl.ts';
import { DEFAULT_JOB_MACHINE_SETTINGS, type JobMachineSettings, jobMachines } from '#workflows/job-machines.ts';
import { performStep } from '#workflows/steps.ts';
import { makeBlobGrants } from './blob-grants.ts';
import { blobServer } from './blob-server.ts';
import { Database } from './database/database.ts';
import { openFileBlobs } from './file-blobs.ts';
import { lockFolder } from './folder-lock.ts';
import { openKeyFile } from './key-file.ts';
import { SqliteQueue } from './sqlite-queue.ts';
import { SqliteTable } from './sqlite-table.ts';
import { systemClock } from './system-clock.ts';
import { systemRandom } from './system-random.ts';
import { WorkflowInterpreter } from './workflow-interpreter/interpreter.ts';

const OBJECTS = '/objects';
const clock = systemClock;
const random = systemRandom;

/** Shorter than in the cloud, where each look costs: on one machine it is people who wait. */
export const LOCAL_SETTINGS: Settings & JobMachineSettings = {
  ...DEFAULT_SETTINGS,
  ...DEFAULT_JOB_MACHINE_SETTINGS,
  taskVisibilitySeconds: 4,
  progressSeconds: 1,
  proxyOnlineSeconds: 30,
  heartbeatSeconds: 30,
  slotWaitSeconds: 1,
  slotWaitMaxSeconds: 10,
};

export interface ControlPlaneOptions {
  readonly folder: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly settings?: Partial<Settings & JobMachineSettings>;
  /** Milliseconds between two looks at what is due. */
  readonly tickMs?: number;
  readonly log: (entry: LogEntry) => void;
}

/** A control plane at work on this machine. */
export interface RunningControlPlane extends AsyncDisposable {
  readonly url: string;
  readonly tenant: Tenant;
  readonly services: Services;
  /** Holds an API key with all rights; mode 0600. */
  readonly apiKeyFile: string;
}

/**
 * Starts the whole control plane on a folder: API and object grants over HTTP on the loopback address, durable
 * table, queue and workflows in one SQLite file, objects as files. Takes up whatever was running when it last
 * stopped. Throws `busy` if another one runs there or the port is taken.
 */
export async function startControlPlane(options: ControlPlaneOptions): Promise<RunningControlPlane> {
  const { folder, log } = options;
  const settings = { ...LOCAL_SETTINGS, ...options.settings };
  await using stack = new AsyncDisposableStack();
  stack.use(lockFolder(folder, 'control plane'));
  const database = new Database(join(folder, 'control-plane.db'));
  stack.defer(() => database.close());
  const keys = await openKeyFile(join(folder, 'service-key'), random);
  const blobs = await openFileBlobs(join(folder, 'objects'), { clock, random });
  stack.defer(() => blobs.close());

  let serve: ((request: Request) => Response | Promise<Response>) | undefined;
  const server = createAdaptorServer({
    fetch: (request: Request) => serve?.(request) ?? new Response('starting', { status: 503 }),
  }) as Server;
  stack.defer(() => closeServer(server));
  const url = await listen(server, options.port);

  const secret = keys.secretFor('grants');
  const holder: { services?: Services } = {};
  const workflows = new WorkflowInterpreter({
    database,
    clock,
    random,
    machines: {
      ProtectMachine: machineSchema.parse(jobMachines(settings).ProtectMachine),
      RestoreRun: machineSchema.parse(jobMachines(settings).RestoreRun),
    },
    handler: (resource, input) => performStep(holder.services!, resource, input),
    onError: (error) => log({ level: 'error', event: 'workflow-error', data: { error: reportOf(error).message } }),
  });
  const services: Services = {
    table: new SqliteTable(database, clock),
    queue: new SqliteQueue(database, clock, random),
    grants: makeBlobGrants({ baseUrl: url + OBJECTS, secret, clock }),
    blobs,
    keys,
    workflows,
    clock,
    random,
    settings,
    log,
  };
  holder.services = services;
  const tenant = await ensureDefaultTenant(services);
  const apiKeyFile = join(folder, 'api-key');
  await ensureApiKey(services, tenant, apiKeyFile);

  const app = new Hono();
  app.route(OBJECTS, blobServer({ blobs, secret, clock }));
  app.route('/', buildApi(services));
  serve = (request) => app.fetch(request);

  await workflows.resume();
  stack.defer(() => workflows.close());
  stack.defer(startTicking(services, options.tickMs ?? 5000));
  const all = stack.move();
  return { url, tenant, services, apiKeyFile, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** Looks at what is due now and then until the returned function is called. */
function startTicking(services: Services, everyMs: number): () => Promise<void> {
  const stop = new AbortController();
  const loop = (async () => {
    while (!stop.signal.aborted) {
      await tick(services, stop.signal).catch((error: unknown) => {
        services.log({ level: 'error', event: 'tick-failed', data: { error: reportOf(error).message } });
      });
      await clock.sleep(everyMs, stop.signal).catch(() => undefined);
    }
  })();
  return async () => {
    stop.abort();
    await loop;
  };
}

async function listen(server: Server, port: number): Promise<string> {
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  } catch (cause) {
    const isTaken = (cause as NodeJS.ErrnoException).code === 'EADDRINUSE';
    throw new HoldfastError(isTaken ? 'busy' : 'usage', `Port ${port} cannot be used: ${(cause as Error).message}`, {
      remedy: 'Give another port with --port; 0 takes a free one',
      cause,
    });
  }
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = once(server, 'close');
  server.close();
  // Long polls would hold it open for their full length.
  server.closeAllConnections();
  await closed;
}

/** A key for people and scripts on this machine: made once, kept where only the owner can read it. */
async function ensureApiKey(services: Services, tenant: Tenant, path: string): Promise<void> {
  const text = await readFile(path, 'utf8').catch(() => '');
  if (text !== '') return;
  const { key } = await createApiKey(services, { tenant: tenant.id }, 'made at first start');
  await writeSecret(path, `${key}\n`);
}

/** Writes a file that only its owner can read, whole or not at all. */
export async function writeSecret(path: string, content: string): Promise<void> {
  const temporary = `${path}.new`;
  await unlink(temporary).catch(() => undefined);
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}
