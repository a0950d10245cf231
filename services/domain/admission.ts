/** Who may work on a proxy now. */
export interface Slots {
  /** Jobs that hold a slot, oldest first. */
  readonly holders: readonly string[];
  readonly capacity: number;
}

export type Admission =
  | { readonly admitted: true; readonly slots: Slots }
  | { readonly admitted: false; readonly why: string };

/** Gives the job a slot if one is free, or if it holds one already. */
export function admit(slots: Slots, job: string): Admission {
  if (slots.holders.includes(job)) return { admitted: true, slots };
  if (slots.holders.length >= slots.capacity) {
    return { admitted: false, why: `All ${slots.capacity} slots of the proxy are taken` };
  }
  return { admitted: true, slots: { ...slots, holders: [...slots.holders, job] } };
}

/** Takes the job's slot back, if it has one. */
export function release(slots: Slots, job: string): Slots {
  return { ...slots, holders: slots.holders.filter((holder) => holder !== job) };
}
