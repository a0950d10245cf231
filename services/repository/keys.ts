import type { Id } from '#contract/ids.ts';

/** The secrets of one vault, all random. Whoever holds them can read everything in it; docs/format.md says what each does. */
export interface VaultKeys {
  readonly vault: Id<'vault'>;
  /** 32 bytes: names chunks. */
  readonly idKey: Uint8Array;
  /** 32 bytes: derives a key for each chunk. */
  readonly sealKey: Uint8Array;
  /** 16 bytes: decides where chunks end. */
  readonly cutKey: Uint8Array;
  /** Ed25519 private key, 32-byte seed: signs points. */
  readonly signSeed: Uint8Array;
}
