// What a view shows at first, and what of it goes along to another picture. Pure functions.

/** Channels as the server proposes them, or as a link says; null where the link is silent. */
export function firstChannels(info, linked) {
  if (info.kind === "rgb") return [];
  return info.channels.map((facts, index) => {
    const { name, color, low, high, visible } = facts;
    const measured = facts.measured !== false;
    const given = linked?.find((channel) => channel.name === name);
    if (linked) return { index, name, color: given?.color ?? color, low: given?.low ?? low, high: given?.high ?? high, visible: Boolean(given) && measured };
    return { index, name, color, low, high, visible: visible && measured };
  });
}

/** Channels for another picture: colours and choice go along by name, contrast where it was set by hand. */
export function carriedChannels(info, before, channels) {
  const fresh = firstChannels(info, null);
  const names = new Set(channels.map(({ name }) => name));
  if (!fresh.some(({ name }) => names.has(name))) return fresh;
  return fresh.map((channel) => {
    const old = channels.find(({ name }) => name === channel.name);
    if (!old) return { ...channel, visible: false };
    const facts = before.channels[old.index];
    const own = old.low !== facts.low || old.high !== facts.high;
    const limits = own ? { low: old.low, high: old.high } : {};
    return { ...channel, ...limits, color: old.color, visible: old.visible && info.channels[channel.index].measured !== false };
  });
}

/** Of these layers, those that the picture has. */
export function knownLayers(info, layers) {
  const known = ({ kind, id }) => (info.layers[kind] ?? []).some((layer) => layer.id === id);
  return layers.filter(known).map((layer) => ({ ...layer, options: { ...layer.options } }));
}

/** What a link asks for that the picture does not have, as sentences. */
export function unknownParts(info, name, { channels, layers }) {
  const known = new Set(info.channels.map((channel) => channel.name));
  const lost = (channels ?? []).filter((channel) => !known.has(channel.name)).map((channel) => `channel ${channel.name}`);
  const there = new Set(knownLayers(info, layers ?? []).map(({ kind, id }) => JSON.stringify([kind, id])));
  const gone = (layers ?? []).filter(({ kind, id }) => !there.has(JSON.stringify([kind, id]))).map(({ kind, id }) => `${kind} ${id}`);
  return [...lost, ...gone].map((what) => `${name} has no ${what}, which the link asks for.`);
}

/** A modality to look at beside another one: a different one if there is any. */
export const companion = (modalities, modality) => modalities.find((one) => one !== modality) ?? modality;
