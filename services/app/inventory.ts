import type { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import type { createMachine, createSource, Machine, Source } from '#contract/sources.ts';
import { isoTime } from '#contract/time.ts';
import type { Ids, TenantContext } from './context.ts';
import type { Services } from './services.ts';
import { stores } from './stores.ts';

/** Registers a source on one of the tenant's proxies; throws `not-found`. */
export async function addSource(
  services: Services,
  context: TenantContext,
  ids: Ids,
  input: z.infer<typeof createSource>,
): Promise<Source> {
  const { proxies, sources } = stores(services.table);
  await proxies.get(context, input.proxy);
  const source: Source = { ...input, id: ids.make('source'), createdAt: isoTime(services.clock.nowMs()) };
  return sources.create(context, source.id, source);
}

/** Registers a machine of a source; throws `not-found`, or `usage` if two disks share a name. */
export async function addMachine(
  services: Services,
  context: TenantContext,
  ids: Ids,
  input: z.infer<typeof createMachine>,
): Promise<Machine> {
  const { sources, machines } = stores(services.table);
  await sources.get(context, input.source);
  if (new Set(input.disks.map((disk) => disk.name)).size !== input.disks.length) {
    throw new HoldfastError('usage', 'Two disks of the machine have the same name', {
      remedy: 'Name each disk differently',
    });
  }
  const machine: Machine = { ...input, id: ids.make('machine'), createdAt: isoTime(services.clock.nowMs()) };
  return machines.create(context, machine.id, machine);
}
