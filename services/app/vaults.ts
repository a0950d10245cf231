import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import { createVaultKeys, decodeKeys, encodeKeys, type VaultKeys } from '#repository/keys.ts';
import { VAULT_KEY } from '#repository/names.ts';
import { vaultPrefix } from '#repository/prefix.ts';
import { sealBox } from '#repository/sealed-box.ts';
import { decodeVaultObject, describeVault, encodeVaultObject } from '#repository/vault-object.ts';
import type { TenantContext } from './context.ts';
import { toItem, unlessThere } from './records.ts';
import type { Services } from './services.ts';

const keyItem = (context: TenantContext, vault: Id<'vault'>) => ({
  partition: `${context.tenant}#vaults`,
  sort: vault,
});
const vaultRecord = z.object({ vault: idSchema('vault'), wrappedKeys: z.base64() });

/**
 * Makes a vault with keys of its own, wrapped by the Keys port before they are stored; does nothing if it is
 * there already. The wrapped keys are settled first: only their one winner's public key is then published.
 */
export async function createVault(services: Services, context: TenantContext, vault: Id<'vault'>): Promise<void> {
  if ((await services.table.get(keyItem(context, vault))) === undefined) {
    const keys = encodeKeys(createVaultKeys(vault, services.random));
    const wrapped = await services.keys.wrap(keys, bound(context, vault));
    const record = { vault, wrappedKeys: Buffer.from(wrapped).toString('base64') };
    await unlessThere(services.table.put(keyItem(context, vault), toItem(record), { ifAbsent: true }));
  }
  const keys = await openVaultKeys(services, context, vault);
  const object = encodeVaultObject(describeVault(keys, services.clock.nowMs()));
  await services.blobs.putIfAbsent(vaultPrefix(vault) + VAULT_KEY, [object]);
}

/** The vault's keys sealed to a proxy's X25519 key: the only form in which they leave the control plane. */
export async function sealVaultKeys(
  services: Services,
  context: TenantContext,
  vault: Id<'vault'>,
  sealKey: string,
): Promise<Uint8Array> {
  const keys = await openVaultKeys(services, context, vault);
  return sealBox(Buffer.from(sealKey, 'base64url'), encodeKeys(keys), vault, services.random);
}

/** Ed25519, 32 bytes: checks the vault's points. */
export async function vaultPublicKey(services: Services, vault: Id<'vault'>): Promise<Uint8Array> {
  const found = await services.blobs.get(vaultPrefix(vault) + VAULT_KEY);
  if (found === undefined) throw new HoldfastError('missing', `The object that describes vault ${vault} is gone`);
  return Buffer.from(decodeVaultObject(found.content).publicSigningKey, 'base64');
}

/** The vault's keys in clear, for their owner's key file; never to be stored or sent. */
export async function openVaultKeys(
  services: Pick<Services, 'table' | 'keys'>,
  context: TenantContext,
  vault: Id<'vault'>,
): Promise<VaultKeys> {
  const item = await services.table.get(keyItem(context, vault));
  if (item === undefined) throw new HoldfastError('not-found', `There is no vault ${vault}`);
  const { wrappedKeys } = vaultRecord.parse(item.value);
  return decodeKeys(await services.keys.unwrap(Buffer.from(wrappedKeys, 'base64'), bound(context, vault)));
}

function bound(context: TenantContext, vault: Id<'vault'>) {
  return { tenant: context.tenant, vault };
}
