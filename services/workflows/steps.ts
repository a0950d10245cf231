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
  try {
    return await perform(services, resource, input);
  } catch (error) {
    if (error instanceof HoldfastError) throw error;
    // The machines retry by the names of our codes.
    const message = error instanceof Error ? error.message : String(error);
    services.log({ level: 'error', event: 'step-failed', data: { resource, error: message } });
    throw new HoldfastError('internal', message, { cause: error });
  }
}

async function perform(services: Services, resource: string, input: unknown): Promise<JsonObject> {
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
