import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import type { Random } from '#ports/random.ts';

/** The secrets of one vault, all random. Whoever holds them can read everything in it; docs/format.md says what each does. */
export interface VaultKeys {
  readonly vault: Id<'vault'>;
  /** 32 bytes: names chunks. The same for the vault's life, or nothing would deduplicate. */
  readonly idKey: Uint8Array;
  /** 16 bytes: decides where chunks end. */
  readonly cutKey: Uint8Array;
  /** 32 bytes each: derive a key for each chunk. New chunks use the last; a rotation adds one. At most 65,535. */
  readonly sealKeys: readonly Uint8Array[];
  /** Ed25519 private key, 32-byte seed: signs points. */
  readonly signSeed: Uint8Array;
}

/** Makes a new vault's keys. */
export function createVaultKeys(vault: Id<'vault'>, random: Random): VaultKeys {
  return {
    vault,
    idKey: random.bytes(32),
    cutKey: random.bytes(16),
    sealKeys: [random.bytes(32)],
    signSeed: random.bytes(32),
  };
}

/** The same keys with a new sealing key: data written from now on needs it, older data stays readable. */
export function rotateVaultKeys(keys: VaultKeys, random: Random): VaultKeys {
  return { ...keys, sealKeys: [...keys.sealKeys, random.bytes(32)] };
}

const secret = (bytes: number) =>
  z
    .base64()
    .transform((text) => new Uint8Array(Buffer.from(text, 'base64')))
    .refine((value) => value.length === bytes, `must be ${bytes} bytes`);

const encodedKeys = z.object({
  vault: idSchema('vault'),
  idKey: secret(32),
  cutKey: secret(16),
  sealKeys: z.array(secret(32)).min(1).max(65_535),
  signSeed: secret(32),
});

/** The keys as UTF-8 JSON with base64 values: what gets wrapped by a passphrase, a key service or a proxy's public key. */
export function encodeKeys(keys: VaultKeys): Uint8Array {
  const text = (value: Uint8Array) => Buffer.from(value).toString('base64');
  return Buffer.from(
    JSON.stringify({
      vault: keys.vault,
      idKey: text(keys.idKey),
      cutKey: text(keys.cutKey),
      sealKeys: keys.sealKeys.map(text),
      signSeed: text(keys.signSeed),
    }),
  );
}

/** The inverse of {@link encodeKeys}; throws `damaged`. Never puts the content into the error. */
export function decodeKeys(bytes: Uint8Array): VaultKeys {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    throw new HoldfastError('damaged', 'The vault keys are not readable');
  }
  const parsed = encodedKeys.safeParse(value);
  if (!parsed.success) throw new HoldfastError('damaged', 'The vault keys are not complete');
  return parsed.data;
}
