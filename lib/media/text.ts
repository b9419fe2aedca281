/** Text from outside that people will read. */

const MAX_LENGTH = 200;

/** Text fit for a terminal and a page: one line of at most 200 characters, none for control or direction. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?').slice(0, MAX_LENGTH);
}
