import { z } from 'zod';
import { type ErrorCode, HoldfastError } from './errors.ts';

/**
 * An error answer: RFC 9457 problem details with a stable `code`. `detail` says what happened,
 * `remedy` what to do; `requestId` finds the request in the logs.
 */
export const problemSchema = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.number().int(),
    detail: z.string(),
    code: z.string(),
    requestId: z.string(),
    remedy: z.string().optional(),
    tried: z.string().optional(),
    retryable: z.boolean().optional(),
    data: z.record(z.string(), z.unknown()).optional(),
  })
  .meta({ id: 'Problem' });
export type Problem = z.infer<typeof problemSchema>;

/** The media type of a problem. */
export const PROBLEM_TYPE = 'application/problem+json';

/** HTTP status and title of each error code; the title never varies for a code (RFC 9457, 3.1.3). */
export const PROBLEM_OF_CODE: Readonly<Record<ErrorCode, readonly [status: number, title: string]>> = {
  usage: [400, 'The request is not valid'],
  'not-found': [404, 'Not found'],
  exists: [409, 'It exists already'],
  conflict: [409, 'It was changed meanwhile'],
  busy: [409, 'Something else holds it'],
  unauthorized: [401, 'No valid credentials'],
  forbidden: [403, 'Not allowed'],
  'wrong-key': [422, 'The key does not fit'],
  unreadable: [422, 'The source cannot be read'],
  'source-changed': [409, 'The source changed'],
  'target-full': [507, 'No space left'],
  'target-failed': [502, 'The target failed'],
  'store-failed': [503, 'The object store failed'],
  missing: [404, 'An object is gone'],
  damaged: [422, 'The data is damaged'],
  'format-too-new': [422, 'Written by a newer version'],
  limit: [413, 'Over a limit'],
  throttled: [429, 'Too many requests'],
  timeout: [504, 'It took too long'],
  cancelled: [409, 'It was cancelled'],
  protocol: [400, 'The protocol was broken'],
  'needs-program': [501, 'A program is not installed'],
  fenced: [409, 'The session was ended'],
  internal: [500, 'An internal error'],
};

const CODES = new Set<string>(Object.keys(PROBLEM_OF_CODE));

/** The error that a problem stands for, as its receiver throws it; an unknown code becomes `protocol`. */
export function errorOfProblem(problem: Problem): HoldfastError {
  const known = CODES.has(problem.code);
  return new HoldfastError(known ? (problem.code as ErrorCode) : 'protocol', problem.detail, {
    ...(problem.remedy === undefined ? {} : { remedy: problem.remedy }),
    ...(problem.tried === undefined ? {} : { tried: problem.tried }),
    retryable: problem.retryable ?? false,
    data: { ...problem.data, requestId: problem.requestId },
  });
}

/** The wire form of an {@link ErrorReport}, as stored on a failed job and sent by a proxy. */
export const errorReportSchema = z
  .object({
    code: z.string().refine((code) => CODES.has(code), 'must be a known error code') as unknown as z.ZodType<ErrorCode>,
    message: z.string().max(4000),
    remedy: z.string().max(1000).optional(),
    tried: z.string().max(1000).optional(),
    retryable: z.boolean().optional(),
    data: z.record(z.string(), z.unknown()).optional(),
  })
  .meta({ id: 'ErrorReport' });
export type WireErrorReport = z.infer<typeof errorReportSchema>;
