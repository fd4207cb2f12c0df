"""Code in eight languages, and text that nobody means well with: what tokenizers must not stumble over."""

PYTHON = '''
@dataclass(frozen=True)
class Retry:
    """Exponential backoff: 0.1 s, 0.2 s, … at most `limit` tries."""

    limit: int = 5

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(self.limit):
            try:
                return await call()
            except OSError as error:
                log.warning(f"try {attempt + 1}/{self.limit}: {error!r}")
                await asyncio.sleep(0.1 * 2**attempt)
        raise TimeoutError from None
'''
JAVASCRIPT = """
export const debounce = (fn, ms = 250) => {
  let timer = null;
  return function (...args) {
    clearTimeout(timer);
    timer = setTimeout(() => fn.apply(this, args), ms);
  };
};
const url = `https://example.org/${encodeURIComponent(name)}?q=${/\\s+/g.exec(q)?.[0] ?? ""}`;
"""
TYPESCRIPT = """
type DeepPartial<T> = { [K in keyof T]?: T[K] extends object ? DeepPartial<T[K]> : T[K] };
export abstract class Repository<TEntity extends { id: string }> {
  private readonly cache = new Map<string, TEntity>();
  protected abstract load(id: string): Promise<TEntity | undefined>;
  async find(id: string): Promise<TEntity> {
    const found = this.cache.get(id) ?? (await this.load(id));
    if (!found) throw new Error(`no entity ${id}`);
    return found;
  }
}
"""
GO = """
func (s *Server) handle(ctx context.Context, conn net.Conn) (err error) {
\tdefer func() {
\t\tif cerr := conn.Close(); cerr != nil && err == nil {
\t\t\terr = fmt.Errorf("close %s: %w", conn.RemoteAddr(), cerr)
\t\t}
\t}()
\tfor sc := bufio.NewScanner(conn); sc.Scan(); {
\t\tselect {
\t\tcase s.lines <- sc.Text():
\t\tcase <-ctx.Done():
\t\t\treturn ctx.Err()
\t\t}
\t}
\treturn nil
}
"""
RUST = """
impl<'a, T: Ord + ?Sized> Heap<'a, T> {
    pub fn push(&mut self, item: &'a T) -> Result<(), Full> {
        if self.items.len() >= CAPACITY { return Err(Full { at: 0xFF_u8 }); }
        self.items.push(item);
        let mut i = self.items.len() - 1;
        while i > 0 && self.items[i] > self.items[(i - 1) / 2] {
            self.items.swap(i, (i - 1) / 2);
            i = (i - 1) / 2;
        }
        Ok(())
    }
}
macro_rules! square { ($x:expr) => {{ let y = $x; y * y }}; }
"""
JAVA = """
/** Größter gemeinsamer Teiler – Euklid. */
public static <K, V extends Comparable<? super V>> LinkedHashMap<K, V> sortByValue(Map<K, V> map) {
    return map.entrySet().stream()
        .sorted(Map.Entry.<K, V>comparingByValue().reversed())
        .collect(Collectors.toMap(Map.Entry::getKey, Map.Entry::getValue, (a, b) -> a, LinkedHashMap::new));
}
@Override public int hashCode() { return 31 * Objects.hash(name) + (int) (id ^ (id >>> 32)); }
"""
CPP = """
#include <algorithm>
template <typename It, typename Cmp = std::less<>>
void insertion_sort(It first, It last, Cmp cmp = {}) noexcept(noexcept(cmp(*first, *first))) {
  for (auto i = first; i != last; ++i)
    std::rotate(std::upper_bound(first, i, *i, cmp), i, std::next(i));
}
static constexpr auto kMask = 0xdead'beefULL; // NOLINT
#define CHECK(x) do { if (!(x)) ::abort(); } while (0)
"""
RUBY = """
module Cacheable
  def self.included(base) = base.extend(ClassMethods)

  def fetch(key, expires_in: 5.minutes, &block)
    @store[key.to_sym] ||= begin
      value = block&.call or raise KeyError, "no #{key.inspect}"
      [value, Time.now + expires_in]
    end.first
  end
end
puts %w[eins zwei drei].map(&:upcase).each_with_index.to_h { |w, i| [w, i ** 2] }
"""
CODE = {
    "python": PYTHON, "javascript": JAVASCRIPT, "typescript": TYPESCRIPT, "go": GO, "rust": RUST, "java": JAVA,
    "cpp": CPP, "ruby": RUBY,
}  # fmt: skip

HOSTILE = [
    "",
    " ",
    "\n\t\r\n",
    "\x00nul\x00",
    "\ufeffbom",
    "é e\u0301 ﬁ Ⅷ ǅ",
    "a" + "\u0301" * 300 + "z\u0335\u0322" * 40,
    "日本語のコメント 한국어 עברית العربية",
    "👩‍👩‍👧‍👦🏳️‍🌈 👍🏽 🇩🇪",
    "\u202eright to left\u202c שלום abc مرحبا 123",
    "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <|endoftext|> <|im_start|>",
    "<|endoftext|><|endoftext|>x<|endo",
    "a" * 5000,
    "{}[]();:,.<>/?!@#$%^&*-+=|\\`~'\"" * 20,
    "snake_case camelCase HTTPServer2 0xDEADBEEF 1e-9 __init__ 12345678901234567890",
    "\ud7ff\ue000\U0010ffff\ufffe\uffff",
    "tab\tvt\vff\fnbsp\u00a0zwsp\u200bnel\u0085ls\u2028",
    "    \n        \n\t\t  x   \n\n\n",
]
"""Short enough to be read at once."""

ENORMOUS = [
    " " * 40_000 + "def late(): pass",
    "x" * 40_000 + " after",
    ("QUJD" * 500 + " ") * 30 + "tail",
    "word " * 20_000,
    "a " + "b" * 16_381 + " " + "c " * 300,
    "data = '" + "0123456789abcdef" * 65_536 + "'",
    "é" * 1_000_000,
    "x = [" + "1, " * 350_000 + "]",
]
"""Longer than what is looked at first, up to a megabyte on one line: blanks without end, one word without end, both."""
