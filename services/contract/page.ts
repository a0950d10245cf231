import { z } from 'zod';
import { API_PAGE_MAX_ITEMS } from './limits.ts';

/** Query of every list: how many items at most, and where the last page ended. The cursor is opaque. */
export const pageQuery = z.object({
  limit: z.coerce.number().int().min(1).max(API_PAGE_MAX_ITEMS).default(50),
  cursor: z.string().max(2048).optional(),
});
export type PageQuery = z.infer<typeof pageQuery>;

/** A page of a list; `next` is absent on the last one. */
export function pageSchema<T extends z.ZodType>(item: T) {
  return z.object({ items: z.array(item), next: z.string().optional() });
}

/** A page of things of one type. */
export interface Page<T> {
  readonly items: T[];
  readonly next?: string | undefined;
}
