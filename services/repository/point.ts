import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';
import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import { DISK_MAX_BYTES, MACHINE_MAX_DISKS } from '#contract/limits.ts';
import type { Random } from '#ports/random.ts';
import { KeyedHash } from './keyed-hash.ts';
import type { VaultKeys } from './keys.ts';

const MAGIC = Buffer.from('HFPOINT\x01', 'latin1');
const SIGNATURE_BYTES = 64;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** Tag of the key derivation for the sealed part; chunks use 0. */
const KEY_TAG = 1;
const PART_MAX_BYTES = 4 * 1024 * 1024;

const hexId = z.string().regex(/^[0-9a-f]{64}$/);

/** The part of a point that may be read without keys: enough to mark what it reaches. */
const pointFacts = z.object({
  vault: idSchema('vault'),
  machine: idSchema('machine'),
  point: idSchema('point'),
  parent: idSchema('point').nullable(),
  /** Milliseconds since 1970, when the source's snapshot was taken. */
  takenAtMs: z.number().int().nonnegative(),
  disks: z
    .array(z.object({ root: hexId.nullable(), sizeBytes: z.number().int().nonnegative().max(DISK_MAX_BYTES) }))
    .max(MACHINE_MAX_DISKS),
  /** Retention labels. */
  labels: z.array(z.string().max(64)).max(64),
  sealEpoch: z.number().int().nonnegative(),
});

/** The part of a point that only the key's holder can read. */
const pointSecrets = z.object({
  machineName: z.string().max(1024),
  diskNames: z.array(z.string().max(1024)),
  changeMarkers: z.record(z.string(), z.string()),
  /** What re-creates the machine, as its source understands it. */
  config: z.unknown(),
  stats: z.record(z.string(), z.number()),
});

export type PointFacts = z.infer<typeof pointFacts>;
export type PointSecrets = z.infer<typeof pointSecrets>;
export interface Point {
  readonly facts: PointFacts;
  readonly secrets: PointSecrets;
}

/** The object key of a point, relative to its vault. */
export function pointKey(machine: Id<'machine'>, point: Id<'point'>): string {
  return `points/${machine}/${point}`;
}

/** A point as its object's bytes: magic, clear JSON, sealed JSON, Ed25519 signature over all before it. */
export function encodePoint(point: Point, keys: VaultKeys, random: Random): Buffer {
  const facts = Buffer.from(JSON.stringify(pointFacts.parse(point.facts)));
  const nonce = random.bytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', sealKeyOf(keys, point.facts), nonce);
  cipher.setAAD(facts);
  const sealed = Buffer.concat([
    nonce,
    cipher.update(JSON.stringify(pointSecrets.parse(point.secrets))),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
  const signed = Buffer.concat([MAGIC, lengthOf(facts), facts, lengthOf(sealed), sealed]);
  return Buffer.concat([signed, sign(null, signed, signingKey(keys))]);
}

/** Reads the clear part and checks the signature; needs the vault's public key only. Throws `damaged`. */
export function readPointFacts(bytes: Uint8Array, publicKey: Uint8Array): PointFacts {
  return split(bytes, verifyingKey(publicKey)).facts;
}

/** Reads a whole point; throws `damaged` if anything about it is not what was signed. */
export function decodePoint(bytes: Uint8Array, keys: VaultKeys): Point {
  const { facts, factsBytes, sealed } = split(bytes, createPublicKey(signingKey(keys)));
  if (facts.vault !== keys.vault)
    throw new HoldfastError('wrong-key', `The point belongs to vault ${facts.vault}, the keys to ${keys.vault}`);
  const decipher = createDecipheriv('aes-256-gcm', sealKeyOf(keys, facts), sealed.subarray(0, NONCE_BYTES));
  decipher.setAAD(factsBytes);
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  try {
    const text = Buffer.concat([
      decipher.update(sealed.subarray(NONCE_BYTES, sealed.length - TAG_BYTES)),
      decipher.final(),
    ]);
    return { facts, secrets: pointSecrets.parse(JSON.parse(text.toString('utf8'))) };
  } catch (cause) {
    throw damaged('its sealed part does not open', cause);
  }
}

/** The vault's public signing key, 32 bytes, as the `vault` object publishes it. */
export function publicSigningKey(keys: VaultKeys): Buffer {
  return Buffer.from(createPublicKey(signingKey(keys)).export({ format: 'jwk' }).x!, 'base64url');
}

function split(bytes: Uint8Array, publicKey: KeyObject) {
  const buffer = Buffer.from(bytes);
  if (buffer.length < MAGIC.length + 8 + SIGNATURE_BYTES || buffer.compare(MAGIC, 0, 8, 0, 8) !== 0)
    throw damaged('it does not begin as one');
  const signed = buffer.subarray(0, buffer.length - SIGNATURE_BYTES);
  if (!verify(null, signed, publicKey, buffer.subarray(buffer.length - SIGNATURE_BYTES)))
    throw damaged('its signature does not match');
  const factsBytes = takePart(signed, MAGIC.length);
  const sealedAt = MAGIC.length + 4 + factsBytes.length;
  const sealed = takePart(signed, sealedAt);
  if (sealedAt + 4 + sealed.length !== signed.length || sealed.length < NONCE_BYTES + TAG_BYTES)
    throw damaged('its lengths do not fit');
  try {
    return { facts: pointFacts.parse(JSON.parse(factsBytes.toString('utf8'))), factsBytes, sealed };
  } catch (cause) {
    throw damaged('its facts are not readable', cause);
  }
}

function takePart(signed: Buffer, at: number): Buffer {
  const length = at + 4 <= signed.length ? signed.readUInt32LE(at) : Number.POSITIVE_INFINITY;
  if (length > PART_MAX_BYTES || at + 4 + length > signed.length) throw damaged('its lengths do not fit');
  return signed.subarray(at + 4, at + 4 + length);
}

function lengthOf(part: Buffer): Buffer {
  if (part.length > PART_MAX_BYTES)
    throw new HoldfastError('limit', `A point's part of ${part.length} bytes; ${PART_MAX_BYTES} fit`);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(part.length);
  return length;
}

function sealKeyOf(keys: VaultKeys, facts: PointFacts): Buffer {
  const key = keys.sealKeys[facts.sealEpoch];
  if (key === undefined)
    throw new HoldfastError(
      'wrong-key',
      `The point was sealed with key ${facts.sealEpoch + 1}; the key file has ${keys.sealKeys.length}`,
    );
  return new KeyedHash(key).digest(KEY_TAG, Buffer.from(facts.point));
}

function signingKey(keys: VaultKeys): KeyObject {
  // PKCS #8 around a bare Ed25519 seed (RFC 8410, section 7).
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), keys.signSeed]);
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
}

function verifyingKey(publicKey: Uint8Array): KeyObject {
  return createPublicKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(publicKey).toString('base64url') },
    format: 'jwk',
  });
}

function damaged(why: string, cause?: unknown): HoldfastError {
  return new HoldfastError('damaged', `A restore point is damaged: ${why}`, { cause });
}
