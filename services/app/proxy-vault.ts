import type { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type {
  grantSchema,
  headResponse,
  listQuery,
  listResponse,
  uploadGrantsRequest,
} from '#contract/proxy-protocol.ts';
import { isFinal } from '#domain/job.ts';
import type { Grant } from '#ports/blobs.ts';
import { vaultPrefix } from '#repository/prefix.ts';
import { jobOfProxy } from './jobs.ts';
import type { ProxyContext } from './proxy-tokens.ts';
import type { Services } from './services.ts';
import type { JobRecord } from './stores.ts';
import { stores } from './stores.ts';
import { TableVaultState } from './table-vault-state.ts';
import { getTenant } from './tenants.ts';
import { sealVaultKeys } from './vaults.ts';

/** What a proxy may add. Never a point, which only a commit makes, nor the vault's own description. */
const UPLOADABLE = /^(packs|index)\//;

const POINTS = 'points/';

/** The vault's keys for the length of a job, sealed to the proxy. */
export async function sealedVault(services: Services, caller: ProxyContext, job: Id<'job'>) {
  const vault = await vaultOfJob(services, caller, job);
  const { value: proxy } = await stores(services.table).proxies.get(caller, caller.proxy);
  const sealed = await sealVaultKeys(services, caller, vault, proxy.sealKey);
  return { vault, sealedKeys: Buffer.from(sealed).toString('base64') };
}

/** The vault's state in the name of a running job; throws `not-found` if the job is not about the machine. */
export async function vaultStateOf(
  services: Services,
  caller: ProxyContext,
  id: Id<'job'>,
  machine?: Id<'machine'>,
): Promise<TableVaultState> {
  const job = await runningJob(services, caller, id);
  if (machine !== undefined && (job.work.kind !== 'backup' || job.work.machine !== machine)) {
    throw new HoldfastError('not-found', `Job ${id} backs up no machine ${machine}`);
  }
  const { vault } = await getTenant(services, caller);
  return new TableVaultState(services, { tenant: caller.tenant, vault, job: id });
}

/** Grants to add packs and index segments; throws `forbidden` for anything else. */
export async function uploadGrants(
  services: Services,
  caller: ProxyContext,
  id: Id<'job'>,
  objects: z.infer<typeof uploadGrantsRequest>['objects'],
): Promise<z.infer<typeof grantSchema>[]> {
  const job = await runningJob(services, caller, id);
  const wrong = objects.find((object) => !UPLOADABLE.test(object.key));
  if (job.work.kind !== 'backup' || wrong !== undefined) {
    throw new HoldfastError(
      'forbidden',
      wrong === undefined ? 'A restore adds no objects' : `A proxy may not write ${wrong.key}`,
    );
  }
  const { vault } = await getTenant(services, caller);
  const ttl = services.settings.grantSeconds;
  return Promise.all(
    objects.map(async ({ key, lengthBytes, sha256 }) => {
      const hash = Buffer.from(sha256, 'base64');
      return wireGrant(await services.grants.grantUpload(vaultPrefix(vault) + key, lengthBytes, hash, ttl));
    }),
  );
}

/** Grants to read objects of the vault. */
export async function downloadGrants(
  services: Services,
  caller: ProxyContext,
  job: Id<'job'>,
  keys: readonly string[],
) {
  const vault = await vaultOfJob(services, caller, job);
  const ttl = services.settings.grantSeconds;
  return Promise.all(
    keys.map(async (key) => wireGrant(await services.grants.grantDownload(vaultPrefix(vault) + key, ttl))),
  );
}

/** Size and version of each object, `null` where there is none. */
export async function headObjects(
  services: Services,
  caller: ProxyContext,
  job: Id<'job'>,
  keys: readonly string[],
): Promise<z.infer<typeof headResponse>['objects']> {
  const vault = await vaultOfJob(services, caller, job);
  return Promise.all(keys.map(async (key) => (await services.blobs.head(vaultPrefix(vault) + key)) ?? null));
}

/** A page of the vault's objects. */
export async function listObjects(
  services: Services,
  caller: ProxyContext,
  job: Id<'job'>,
  query: z.output<typeof listQuery>,
): Promise<z.infer<typeof listResponse>> {
  const prefix = vaultPrefix(await vaultOfJob(services, caller, job));
  if (query.prefix.startsWith(POINTS)) {
    // The Table says which points exist: an object alone may be of a commit that never came about.
    const { limit, cursor } = { limit: 200, cursor: query.cursor };
    const under = { prefix: query.prefix.slice(POINTS.length) };
    const page = await stores(services.table).machinePoints.list(caller, { limit, cursor }, under);
    const blobs = page.items.map((point) => ({ key: point.key, sizeBytes: point.objectBytes }));
    return { blobs, ...(page.next === undefined ? {} : { next: page.next }) };
  }
  const page = await services.blobs.list(prefix + query.prefix, query.cursor);
  return {
    blobs: page.blobs.map((blob) => ({ ...blob, key: blob.key.slice(prefix.length) })),
    ...(page.next === undefined ? {} : { next: page.next }),
  };
}

async function vaultOfJob(services: Services, caller: ProxyContext, id: Id<'job'>): Promise<Id<'vault'>> {
  await runningJob(services, caller, id);
  return (await getTenant(services, caller)).vault;
}

/** A job that has ended gives no access any more. */
async function runningJob(services: Services, caller: ProxyContext, id: Id<'job'>): Promise<JobRecord> {
  const { value: job } = await jobOfProxy(services, caller, id);
  if (isFinal(job.state)) throw new HoldfastError('fenced', `Job ${id} has ended: ${job.state.status}`);
  return job;
}

function wireGrant(grant: Grant): z.infer<typeof grantSchema> {
  return { ...grant, headers: { ...grant.headers } };
}
