import { z } from 'zod';
import { idSchema } from './ids.ts';
import { nameSchema } from './tenants.ts';
import { timeSchema } from './time.ts';

/** An edge proxy as tenants see it. `online` is judged by its last heartbeat. */
export const proxySchema = z
  .object({
    id: idSchema('proxy'),
    name: nameSchema,
    version: z.string(),
    platform: z.string(),
    /** Ed25519, 32 bytes, base64url: proves who calls. */
    publicKey: z.string(),
    /** X25519, 32 bytes, base64url: secrets for this proxy are sealed to it. */
    sealKey: z.string(),
    createdAt: timeSchema,
    lastSeenAt: timeSchema.optional(),
    online: z.boolean(),
  })
  .meta({ id: 'Proxy' });
export type EdgeProxy = z.infer<typeof proxySchema>;

/** Asks for a token that lets one new proxy enrol. */
export const createActivationToken = z
  .object({
    ttlSeconds: z
      .number()
      .int()
      .min(60)
      .max(7 * 86_400)
      .default(3600),
  })
  .meta({ id: 'CreateActivationToken' });

/** The token itself is shown this once; only its hash is stored. */
export const activationTokenSchema = z
  .object({ id: idSchema('token'), token: z.string(), expiresAt: timeSchema })
  .meta({ id: 'ActivationToken' });
export type ActivationToken = z.infer<typeof activationTokenSchema>;
