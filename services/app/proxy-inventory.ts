import type { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import type { inventoryRequest } from '#contract/proxy-protocol.ts';
import { isoTime } from '#contract/time.ts';
import type { ProxyContext } from './proxy-tokens.ts';
import { toItem } from './records.ts';
import type { Services } from './services.ts';
import { stores } from './stores.ts';

/** Keeps what a proxy sees of one of its sources: one item for each machine, so that a large source fits. */
export async function noteInventory(
  services: Services,
  caller: ProxyContext,
  source: Id<'source'>,
  machines: z.infer<typeof inventoryRequest>['machines'],
): Promise<void> {
  const found = await stores(services.table).sources.find(caller, source);
  if (found?.value.proxy !== caller.proxy) throw new HoldfastError('not-found', `There is no source ${source}`);
  const seenAt = isoTime(services.clock.nowMs());
  for (const machine of machines) {
    const key = { partition: `${caller.tenant}#inventory`, sort: `${source}/${machine.name}` };
    await services.table.put(key, toItem({ ...machine, seenAt }));
  }
}
