import { createPublicKey } from 'node:crypto';
import { compactVerify } from 'jose';
import { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { type Id, idSchema } from '#contract/ids.ts';
import { ASSERTION_AUDIENCE, ASSERTION_MAX_SECONDS, CLOCK_SKEW_MAX_SECONDS } from '#contract/proxy-protocol.ts';
import { isoTime } from '#contract/time.ts';
import { freshIds, type TenantContext } from './context.ts';
import { proxyIdentityOf } from './proxies.ts';
import { toItem, unlessThere } from './records.ts';
import { hashSecret, makeBearer, parseBearer, secretMatches } from './secrets.ts';
import type { Services } from './services.ts';

const PREFIX = 'hft';
const tokenKey = (id: string) => ({ partition: 'auth#access', sort: id });
const NO_HASH = hashSecret('');

const claimsSchema = z.object({
  iss: idSchema('proxy'),
  sub: idSchema('proxy'),
  aud: z.literal(ASSERTION_AUDIENCE),
  iat: z.number(),
  exp: z.number(),
  jti: z.string().min(16).max(100),
});

const accessRecord = z.object({
  tenant: idSchema('tenant'),
  proxy: idSchema('proxy'),
  hash: z.string(),
  expiresAtMs: z.number(),
});

/** Who a proxy's call comes from. */
export interface ProxyContext extends TenantContext {
  readonly proxy: Id<'proxy'>;
}

/** Exchanges a signed assertion for a short access token. Each assertion serves once. */
export async function issueAccessToken(
  services: Services,
  assertion: string,
): Promise<{ accessToken: string; expiresAt: string }> {
  const { clock, random, settings, table } = services;
  const { claims, tenant } = await verifyAssertion(services, assertion);
  const fresh = await unlessThere(
    table.put(
      { partition: `auth#assertions#${claims.iss}`, sort: claims.jti },
      {},
      // Long past the last moment at which the assertion could still be accepted.
      { ifAbsent: true, expiresAtSeconds: Math.ceil(claims.exp) + 2 * CLOCK_SKEW_MAX_SECONDS },
    ),
  );
  if (!fresh) throw refused('The assertion was used already', clock.nowMs());
  const id = freshIds(clock, random).make('token');
  const bearer = makeBearer(PREFIX, id, random);
  const expiresAtMs = clock.nowMs() + settings.accessTokenSeconds * 1000;
  const record = { tenant, proxy: claims.iss, hash: bearer.hash, expiresAtMs };
  await table.put(tokenKey(id), toItem(record), { ifAbsent: true, expiresAtSeconds: Math.ceil(expiresAtMs / 1000) });
  return { accessToken: bearer.text, expiresAt: isoTime(expiresAtMs) };
}

/** Whose access token it is; throws `unauthorized` for anything but a valid one. */
export async function verifyAccessToken(services: Services, text: string): Promise<ProxyContext> {
  const parsed = parseBearer(PREFIX, text);
  const item = parsed && (await services.table.get(tokenKey(parsed.id)));
  const record = item && accessRecord.parse(item.value);
  const now = services.clock.nowMs();
  const matches = secretMatches(parsed?.secret ?? '', record?.hash ?? NO_HASH);
  if (record === undefined || !matches || now >= record.expiresAtMs) {
    throw refused('The access token is not valid or has expired', now);
  }
  return { tenant: record.tenant, proxy: record.proxy };
}

async function verifyAssertion(services: Services, assertion: string) {
  const now = services.clock.nowMs();
  const claims = unverifiedClaims(assertion, now);
  const identity = await proxyIdentityOf(services, claims.iss);
  if (identity === undefined) throw refused('The proxy is not enrolled', now);
  try {
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: identity.publicKey }, format: 'jwk' });
    await compactVerify(assertion, key, { algorithms: ['EdDSA'] });
  } catch {
    throw refused('The assertion is not signed by the proxy’s key', now);
  }
  const seconds = now / 1000;
  if (claims.sub !== claims.iss || claims.exp - claims.iat > ASSERTION_MAX_SECONDS) {
    throw refused('The assertion’s claims are not valid', now);
  }
  if (Math.abs(claims.iat - seconds) > CLOCK_SKEW_MAX_SECONDS || claims.exp + CLOCK_SKEW_MAX_SECONDS < seconds) {
    throw refused('The assertion has expired, or the proxy’s clock is wrong', now);
  }
  return { claims, tenant: identity.tenant };
}

/** The claims, read before the signature is checked: only to find whose key must have signed. */
function unverifiedClaims(assertion: string, now: number): z.infer<typeof claimsSchema> {
  try {
    const payload = assertion.split('.')[1] ?? '';
    return claimsSchema.parse(JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')));
  } catch {
    throw refused('The assertion is not readable', now);
  }
}

/** The server's time goes along, so that a proxy with a wrong clock can tell and correct for it. */
function refused(message: string, nowMs: number): HoldfastError {
  return new HoldfastError('unauthorized', message, {
    remedy: 'Ask for a token with a fresh assertion; if it is refused again, check the clock or enrol anew',
    data: { serverTime: isoTime(nowMs) },
  });
}
