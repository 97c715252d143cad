-- What the shop had before Zoho: products made by hand. They have no zoho_item_id, so they stay as they are, also the one whose SKU Zoho has too.

insert into products (name, sku, description, price, stock_quantity) values
  ('Gift voucher',     'VOUCHER', 'Sold here only',             25.00, null),
  ('Repair, per hour', null,      'Labour',                     60.00, null),
  ('Cable, own brand', 'CAB-1',   'The SKU of a Zoho item too',  4.20, 12);
