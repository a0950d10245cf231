import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import type { VaultKeys } from './keys.ts';
import {
  CHUNK_MAX_PAGES,
  CHUNK_MIN_PAGES,
  CUT_THRESHOLD,
  FORMAT_VERSION,
  PAGE_BYTES,
  SEGMENT_PAGES,
} from './parameters.ts';
import { publicSigningKey } from './point.ts';

const vaultObject = z.object({
  holdfast: z.literal('vault'),
  formatVersion: z.number().int().positive(),
  vault: idSchema('vault'),
  createdAtMs: z.number().int(),
  parameters: z.object({
    pageBytes: z.literal(PAGE_BYTES),
    segmentPages: z.literal(SEGMENT_PAGES),
    chunkMinPages: z.literal(CHUNK_MIN_PAGES),
    chunkMaxPages: z.literal(CHUNK_MAX_PAGES),
    cutThreshold: z.literal(CUT_THRESHOLD),
  }),
  /** Ed25519, base64: whoever has it can check points, and nothing else. */
  publicSigningKey: z.base64(),
});

const COPY_BACK = 'Copy it back from another copy of the vault';

/** What a vault says of itself, in clear: the object `vault`. */
export type VaultObject = z.infer<typeof vaultObject>;

export function describeVault(keys: VaultKeys, createdAtMs: number): VaultObject {
  return {
    holdfast: 'vault',
    formatVersion: FORMAT_VERSION,
    vault: keys.vault,
    createdAtMs,
    parameters: {
      pageBytes: PAGE_BYTES,
      segmentPages: SEGMENT_PAGES,
      chunkMinPages: CHUNK_MIN_PAGES,
      chunkMaxPages: CHUNK_MAX_PAGES,
      cutThreshold: CUT_THRESHOLD,
    },
    publicSigningKey: publicSigningKey(keys).toString('base64'),
  };
}

export function encodeVaultObject(vault: VaultObject): Buffer {
  return Buffer.from(`${JSON.stringify(vault, null, 2)}\n`);
}

/** Parses the object `vault`; throws `format-too-new` or `damaged`. */
export function decodeVaultObject(bytes: Uint8Array): VaultObject {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (cause) {
    throw new HoldfastError('damaged', 'The object `vault` is not readable', { cause, remedy: COPY_BACK });
  }
  const version = z.object({ holdfast: z.literal('vault'), formatVersion: z.number() }).safeParse(value);
  if (version.success && version.data.formatVersion > FORMAT_VERSION) {
    throw new HoldfastError(
      'format-too-new',
      `The vault has format version ${version.data.formatVersion}; this program reads up to ${FORMAT_VERSION}`,
      {
        remedy: 'Use a newer version of Holdfast',
      },
    );
  }
  const parsed = vaultObject.safeParse(value);
  if (!parsed.success)
    throw new HoldfastError('damaged', 'The object `vault` is not what it must be', {
      cause: parsed.error,
      remedy: COPY_BACK,
    });
  return parsed.data;
}

/** Throws `wrong-key` unless the keys are this vault's own, `damaged` if the object names the vault but not its key. */
export function checkKeysFit(vault: VaultObject, keys: VaultKeys): void {
  if (vault.vault === keys.vault && publicSigningKey(keys).toString('base64') === vault.publicSigningKey) return;
  if (vault.vault === keys.vault)
    throw new HoldfastError('damaged', 'The object `vault` is damaged: its signing key is not that of the key file', {
      remedy: COPY_BACK,
    });
  throw new HoldfastError(
    'wrong-key',
    `The key file belongs to vault ${keys.vault as Id<'vault'>}, not to ${vault.vault}`,
    {
      remedy: 'Give the key file that was made with this vault',
    },
  );
}
