import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { open, readFile, rename, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import type { Random } from '#ports/random.ts';
import { x25519PrivateKey, x25519PublicBytes } from '#repository/sealed-box.ts';

const seed = z.base64().refine((text) => Buffer.from(text, 'base64').length === 32, 'must be 32 bytes');
const fileSchema = z.object({
  format: z.literal('holdfast-proxy-identity'),
  version: z.literal(1),
  signSeed: seed,
  sealSeed: seed,
  proxy: idSchema('proxy').optional(),
});
type IdentityContent = z.infer<typeof fileSchema>;

/** Who a proxy is: its key pairs, and its id once it has enrolled. */
export interface Identity {
  readonly signKey: KeyObject;
  /** Ed25519, base64url. */
  readonly publicKey: string;
  /** Opens what is sealed to this proxy. */
  readonly sealPrivateKey: KeyObject;
  /** X25519, base64url. */
  readonly sealPublicKey: string;
  readonly proxy: Id<'proxy'> | undefined;
}

/**
 * Reads the proxy's identity file (mode 0600), or makes one with fresh keys. The keys are on the disk before
 * they are used anywhere, so that an enrolment whose answer is lost can be repeated with the same ones.
 */
export async function openIdentity(folder: string, random: Random): Promise<Identity> {
  const path = identityPath(folder);
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (text !== undefined) {
    await refuseIfOpenToOthers(path);
    return identityOf(parse(path, text));
  }
  const content: IdentityContent = {
    format: 'holdfast-proxy-identity',
    version: 1,
    signSeed: Buffer.from(random.bytes(32)).toString('base64'),
    sealSeed: Buffer.from(random.bytes(32)).toString('base64'),
  };
  await write(path, content);
  return identityOf(content);
}

/** Notes the id that the control plane gave. */
export async function rememberProxy(folder: string, proxy: Id<'proxy'>): Promise<Identity> {
  const path = identityPath(folder);
  const content = { ...parse(path, await readFile(path, 'utf8')), proxy };
  await write(path, content);
  return identityOf(content);
}

function identityPath(folder: string): string {
  return join(folder, 'identity.json');
}

function identityOf(content: IdentityContent): Identity {
  // PKCS #8 around a bare Ed25519 seed (RFC 8410, section 7).
  const der = Buffer.concat([
    Buffer.from('302e020100300506032b657004220420', 'hex'),
    Buffer.from(content.signSeed, 'base64'),
  ]);
  const signKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const sealPrivateKey = x25519PrivateKey(Buffer.from(content.sealSeed, 'base64'));
  return {
    signKey,
    publicKey: createPublicKey(signKey).export({ format: 'jwk' }).x!,
    sealPrivateKey,
    sealPublicKey: x25519PublicBytes(sealPrivateKey).toString('base64url'),
    proxy: content.proxy,
  };
}

function parse(path: string, text: string): IdentityContent {
  try {
    return fileSchema.parse(JSON.parse(text));
  } catch {
    // The parser's own message would quote the file, which holds keys.
    throw new HoldfastError('damaged', `${path} is not a proxy's identity file`, {
      remedy: 'Put it back from its copy, or remove it and enrol the proxy anew',
    });
  }
}

async function refuseIfOpenToOthers(path: string): Promise<void> {
  if (((await stat(path)).mode & 0o077) === 0) return;
  throw new HoldfastError('forbidden', `Others than its owner have access to ${path}`, {
    remedy: `Run: chmod 600 ${path}`,
  });
}

async function write(path: string, content: IdentityContent): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(content, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
