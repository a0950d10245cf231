import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import { isoTime, timeSchema } from '#contract/time.ts';
import { freshIds, type TenantContext } from './context.ts';
import { toItem } from './records.ts';
import { hashSecret, makeBearer, parseBearer, secretMatches } from './secrets.ts';
import type { Services } from './services.ts';

const PREFIX = 'hfk';
const PARTITION = 'auth#api-keys';
// Compared with when no key is found, so that the answer takes as long as for a wrong secret.
const NO_HASH = hashSecret('');

const keyRecord = z.object({
  tenant: idSchema('tenant'),
  name: z.string(),
  hash: z.string(),
  createdAt: timeSchema,
});

/** Makes an API key with all rights in the tenant. The text is never stored: hand it over now. */
export async function createApiKey(
  services: Services,
  context: TenantContext,
  name: string,
): Promise<{ id: Id<'key'>; key: string }> {
  const id = freshIds(services.clock, services.random).make('key');
  const bearer = makeBearer(PREFIX, id, services.random);
  const record = { tenant: context.tenant, name, hash: bearer.hash, createdAt: isoTime(services.clock.nowMs()) };
  await services.table.put({ partition: PARTITION, sort: id }, toItem(record), { ifAbsent: true });
  return { id, key: bearer.text };
}

/** Whose key it is; throws `unauthorized` for anything but a valid one. */
export async function verifyApiKey(
  services: Services,
  text: string,
): Promise<TenantContext & { readonly principal: string }> {
  const parsed = parseBearer(PREFIX, text);
  const item = parsed && (await services.table.get({ partition: PARTITION, sort: parsed.id }));
  const record = item && keyRecord.parse(item.value);
  const matches = secretMatches(parsed?.secret ?? '', record?.hash ?? NO_HASH);
  if (parsed === undefined || record === undefined || !matches) {
    throw new HoldfastError('unauthorized', 'The API key is not valid', {
      remedy:
        'Send "Authorization: Bearer <API key>"; the embedded control plane keeps one in the file api-key of its data folder',
    });
  }
  return { tenant: record.tenant, principal: parsed.id };
}
