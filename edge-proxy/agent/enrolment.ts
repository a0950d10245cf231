import { sign } from 'node:crypto';
import { HoldfastError } from '#contract/errors.ts';
import { type EnrolRequest, enrolmentText, enrolResponse } from '#contract/proxy-protocol.ts';
import { contentOf } from './control-plane.ts';
import type { HttpClient } from './http-client.ts';
import { type Identity, rememberProxy } from './identity.ts';
import { type Patience, type PatienceContext, persist } from './patience.ts';

export interface Enrolment {
  readonly baseUrl: string;
  readonly http: HttpClient;
  readonly folder: string;
  readonly name: string;
  readonly version: string;
  readonly platform: string;
  readonly patience: Patience;
}

/** Registers the proxy's keys with an activation token and notes the id it gets; an enrolled proxy stays what it is. */
export async function enrol(
  enrolment: Enrolment,
  identity: Identity,
  activationToken: string | undefined,
  context: PatienceContext,
): Promise<Identity> {
  if (identity.proxy !== undefined) return identity;
  if (activationToken === undefined) {
    throw new HoldfastError('unauthorized', 'The proxy is not enrolled and has no activation token', {
      remedy: 'Make an activation token and pass it with --activation-token-file',
    });
  }
  const { publicKey, sealPublicKey: sealKey } = identity;
  const { name, version, platform } = enrolment;
  const proof = sign(null, Buffer.from(enrolmentText(publicKey, sealKey, activationToken)), identity.signKey);
  const request: EnrolRequest = {
    activationToken,
    name,
    version,
    platform,
    publicKey,
    sealKey,
    proof: proof.toString('base64url'),
  };
  const content = Buffer.from(JSON.stringify(request));
  const answer = await persist(enrolment.patience, context, async () =>
    contentOf(
      await enrolment.http.send({
        method: 'POST',
        url: `${enrolment.baseUrl}/v1/proxy/enrol`,
        headers: { 'content-type': 'application/json', 'content-length': String(content.length) },
        parts: [content],
        idleMs: 30_000,
        signal: context.signal,
      }),
      enrolResponse,
    ),
  );
  return rememberProxy(enrolment.folder, answer.proxy);
}
