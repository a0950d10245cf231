import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import { type Tenant, tenantSchema } from '#contract/tenants.ts';
import { isoTime } from '#contract/time.ts';
import { freshIds, type TenantContext } from './context.ts';
import { toItem, unlessThere } from './records.ts';
import type { Services } from './services.ts';
import { createVault } from './vaults.ts';

const PARTITION = 'tenants';
const DEFAULT_KEY = { partition: 'settings', sort: 'default-tenant' };
const defaultRecord = z.object({ tenant: tenantSchema });

/** A tenant; throws `not-found`. */
export async function getTenant(services: Services, context: TenantContext): Promise<Tenant> {
  const item = await services.table.get({ partition: PARTITION, sort: context.tenant });
  if (item === undefined) throw new HoldfastError('not-found', `There is no tenant ${context.tenant}`);
  return tenantSchema.parse(item.value);
}

/**
 * The one tenant of an embedded control plane, made with its vault on the first call. The choice of ids is
 * settled first; what follows may be cut short and is finished by the next call.
 */
export async function ensureDefaultTenant(services: Services): Promise<Tenant> {
  const tenant = (await settled(services)) ?? (await settle(services));
  await createVault(services, { tenant: tenant.id }, tenant.vault);
  await unlessThere(services.table.put({ partition: PARTITION, sort: tenant.id }, toItem(tenant), { ifAbsent: true }));
  return tenant;
}

/** The tenant that {@link ensureDefaultTenant} made; throws `not-found`. */
export async function getDefaultTenant(services: Pick<Services, 'table'>): Promise<Tenant> {
  const tenant = await settled(services);
  if (tenant) return tenant;
  throw new HoldfastError('not-found', 'The control plane has no tenant yet', {
    remedy: 'Start it once with: holdfast up',
  });
}

async function settled(services: Pick<Services, 'table'>): Promise<Tenant | undefined> {
  const item = await services.table.get(DEFAULT_KEY);
  return item && defaultRecord.parse(item.value).tenant;
}

async function settle(services: Services): Promise<Tenant> {
  const ids = freshIds(services.clock, services.random);
  const id: Id<'tenant'> = ids.make('tenant');
  const tenant: Tenant = {
    id,
    kind: 'customer',
    name: 'default',
    vault: ids.make('vault'),
    createdAt: isoTime(services.clock.nowMs()),
  };
  if (await unlessThere(services.table.put(DEFAULT_KEY, toItem({ tenant }), { ifAbsent: true }))) return tenant;
  return (await settled(services)) ?? tenant;
}
