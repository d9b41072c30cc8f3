// Numbers as people read them. Null is what nobody knows.

export const NOTHING = "–";

/** So many digits as are worth reading. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NOTHING;
  const size = Math.abs(value);
  const digits = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(value) {
  if (value === null || value === undefined) return NOTHING;
  let unit = 0;
  let size = value;
  while (size >= 1000 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(size) : number(size)} ${UNITS[unit]}`;
}

export const percent = (share) => (share === null || share === undefined ? NOTHING : `${Math.round(share * 100)} %`);

export const ms = (value) => (value === null || value === undefined ? NOTHING : `${number(value)} ms`);

export const layers = (stage) => (stage.first_layer === stage.last_layer ? `layer ${stage.first_layer}` : `layers ${stage.first_layer}–${stage.last_layer}`);

export const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

const KINDS = { thunderbolt: "Thunderbolt", ethernet: "Ethernet", wifi: "Wi-Fi", bridge: "Thunderbolt Bridge", loopback: "this machine", other: "network" };

export const linkKind = (link) => KINDS[link.kind] ?? link.kind;

export const linkSpeed = (link) => (link.gbps === null ? NOTHING : `${number(link.gbps)} Gb/s`);

export const roundTrip = (link) => (link.round_trip_us === null ? NOTHING : link.round_trip_us >= 1000 ? `${number(link.round_trip_us / 1000)} ms` : `${Math.round(link.round_trip_us)} µs`);

/** Watts; a tilde where they are no measurement. */
export const watts = (value, isEstimate) => (value === null || value === undefined ? NOTHING : `${isEstimate ? "~" : ""}${number(value)} W`);
