import { z } from 'zod';
import { admitJob, caughtError, dispatchJob, settleJob, stepInput } from '#app/job-steps.ts';
import type { Services } from '#app/services.ts';
import { HoldfastError } from '#contract/errors.ts';
import type { JsonObject } from '#ports/table.ts';
import { ADMIT, DISPATCH, SETTLE } from './job-machines.ts';

const dispatchInput = stepInput.extend({ token: z.string() });
const settleInput = stepInput.extend({ caught: caughtError.optional() });

/**
 * Does one step of a state machine. A step may run twice: each leaves things as running it once would.
 *
 * @param resource  as the machine names it; an ending `.waitForTaskToken` is not looked at
 */
export async function performStep(services: Services, resource: string, input: unknown): Promise<JsonObject> {
  switch (resource.replace(/\.waitForTaskToken$/, '')) {
    case ADMIT:
      return admitJob(services, stepInput.parse(input));
    case DISPATCH: {
      const { token, ...rest } = dispatchInput.parse(input);
      await dispatchJob(services, rest, token);
      return {};
    }
    case SETTLE: {
      const { caught, ...rest } = settleInput.parse(input);
      return settleJob(services, rest, caught);
    }
    default:
      throw new HoldfastError('internal', `There is no step ${resource}`);
  }
}
