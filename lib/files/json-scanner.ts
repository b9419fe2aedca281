/**
 * A strict reader of JSON text for callers that know what comes next. It never builds values it was not asked for,
 * tells duplicate names apart (the caller sees every name), does not recurse by itself, and stops at the first
 * character that does not belong: what a hostile text costs is bounded by what its reader asks for.
 */
import { formatError, quote } from './io.js';

/** Words for an error's sentence, made only if there is an error: names are many, and quoting them takes time. */
export type Words = () => string;

/** Consumes what each method names, or throws ERR_FILE_FORMAT. */
export class JsonScanner {
  private position = 0;

  /**
   * @param text decoded UTF-8
   * @param path names the file in errors
   */
  constructor(
    private readonly text: string,
    private readonly path: string,
  ) {}

  fail(got: string, wanted: string): never {
    throw formatError(this.path, `a header with ${got}`, wanted);
  }

  private unexpected(wanted: Words): never {
    const next = this.text.slice(this.position, this.position + 12);
    return this.fail(next === '' ? 'its end' : `${quote(next)} at character ${this.position}`, wanted());
  }

  private skipSpace(): void {
    for (; this.position < this.text.length; this.position++) {
      const char = this.text.charCodeAt(this.position);
      if (char !== 0x20 && char !== 0x0a && char !== 0x0d && char !== 0x09) return;
    }
  }

  /** Takes one punctuation character if it comes next. */
  private accept(char: string): boolean {
    this.skipSpace();
    if (this.text[this.position] !== char) return false;
    this.position++;
    return true;
  }

  private expect(char: string, wanted: Words): void {
    if (!this.accept(char)) this.unexpected(wanted);
  }

  string(wanted: Words): string {
    this.expect('"', wanted);
    const begin = this.position;
    let escaped = false;
    for (; ; this.position++) {
      if (this.position >= this.text.length) this.unexpected(() => 'a closing quote');
      const char = this.text.charCodeAt(this.position);
      if (char === 0x22) break;
      if (char < 0x20) this.unexpected(() => 'strings without raw control characters');
      if (char !== 0x5c) continue;
      escaped = true;
      this.position++; // whatever is escaped, the string does not end there
    }
    const raw = this.text.slice(begin, this.position);
    this.position++;
    return escaped ? this.unescape(raw) : raw;
  }

  private unescape(raw: string): string {
    let value: string;
    try {
      value = JSON.parse(`"${raw}"`) as string;
    } catch {
      return this.fail(`the string ${quote(raw)}`, 'valid JSON escapes');
    }
    // Half of a surrogate pair is no character: it could not be written back as UTF-8.
    return isWellFormed(value) ? value : this.fail(`the string ${quote(raw)}`, 'well-formed Unicode');
  }

  /** A non-negative safe integer; JSON's fractions and exponents are no sizes. */
  private integer(what: Words): number {
    this.skipSpace();
    const begin = this.position;
    let value = 0;
    let char = this.text.charCodeAt(begin);
    for (
      ;
      char >= 0x30 && char <= 0x39 && value <= Number.MAX_SAFE_INTEGER;
      char = this.text.charCodeAt(this.position)
    ) {
      value = value * 10 + (char - 0x30);
      this.position++;
    }
    const digits = this.position - begin;
    const leadingZero = digits > 1 && this.text[begin] === '0';
    const goesOn = char === 0x2e || char === 0x45 || char === 0x65; // . E e
    if (digits > 0 && !leadingZero && !goesOn && value <= Number.MAX_SAFE_INTEGER) return value;
    this.position = begin;
    return this.unexpected(() => `${what()} of non-negative integers up to 2^53 - 1`);
  }

  /** An array of non-negative safe integers. */
  integers(what: Words, maxLength: number): number[] {
    this.expect('[', () => `${what()} as an array`);
    const values: number[] = [];
    if (this.accept(']')) return values;
    do {
      if (values.length === maxLength) this.fail(`more than ${maxLength} numbers in ${what()}`, `at most ${maxLength}`);
      values.push(this.integer(what));
    } while (this.accept(','));
    this.expect(']', () => `"," or "]" in ${what()}`);
    return values;
  }

  /** An object; `member` is called with every name and consumes its value. */
  object(what: Words, member: (key: string) => void): void {
    this.expect('{', () => `${what()} as an object`);
    if (this.accept('}')) return;
    do {
      const key = this.string(() => `a name in ${what()}`);
      this.expect(':', () => `":" after a name in ${what()}`);
      member(key);
    } while (this.accept(','));
    this.expect('}', () => `"," or "}" in ${what()}`);
  }

  end(): void {
    this.skipSpace();
    if (this.position < this.text.length) this.unexpected(() => 'nothing but spaces after the object');
  }
}

/** Whether a string is free of unpaired surrogates, that is, has a UTF-8 form. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}
