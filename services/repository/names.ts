/** Keys of a vault's objects, relative to the vault. */

export const VAULT_KEY = 'vault';
export const STATE_KEY = 'state/vault.json';

/** @param packId  16 random bytes */
export function packKey(packId: Uint8Array): string {
  const hex = Buffer.from(packId).toString('hex');
  return `packs/${hex.slice(0, 2)}/${hex}`;
}

/** @param segmentId  16 random bytes */
export function indexKey(generation: number, segmentId: Uint8Array): string {
  return `index/${String(generation).padStart(10, '0')}/${Buffer.from(segmentId).toString('hex')}`;
}
