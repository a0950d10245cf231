import type { ContentfulStatusCode } from 'hono/utils/http-status';
import type { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { PROBLEM_OF_CODE, PROBLEM_TYPE, type Problem } from '#contract/problem.ts';
import type { Services } from './services.ts';

/** Anything thrown as an error answer. What is not an expected failure is logged and answered without detail. */
export function problemAnswer(services: Services, error: unknown, requestId: string): Response {
  if (!(error instanceof HoldfastError)) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    services.log({ level: 'error', event: 'internal-error', data: { requestId, error: what } });
  }
  const failure =
    error instanceof HoldfastError ? error : new HoldfastError('internal', 'Something went wrong on our side');
  const [status, title] = PROBLEM_OF_CODE[failure.code];
  const problem: Problem = {
    type: `urn:holdfast:problem:${failure.code}`,
    title,
    status,
    detail: failure.message,
    code: failure.code,
    requestId,
    ...(failure.remedy === undefined ? {} : { remedy: failure.remedy }),
    ...(failure.tried === undefined ? {} : { tried: failure.tried }),
    ...(failure.retryable ? { retryable: true } : {}),
    ...(Object.keys(failure.data).length === 0 ? {} : { data: { ...failure.data } }),
  };
  return Response.json(problem, {
    status: status as ContentfulStatusCode,
    headers: {
      'content-type': PROBLEM_TYPE,
      'x-request-id': requestId,
      ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
      ...(failure.retryable && (status === 429 || status === 503) ? { 'retry-after': '1' } : {}),
    },
  });
}

/** Checks a part of a request; throws `usage` that names each member and what is wrong with it. */
export function checkPart<S extends z.ZodType>(schema: S, value: unknown, part: string): z.output<S> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.slice(0, 20).map((issue) => ({
    at: [part, ...issue.path.map(String)].join('.'),
    problem: issue.message,
  }));
  const first = issues[0]!;
  throw new HoldfastError('usage', `${first.at}: ${first.problem}`, {
    remedy: 'Correct the request; /v1/openapi.json describes it',
    data: { issues },
  });
}
